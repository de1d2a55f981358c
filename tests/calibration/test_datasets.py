"""Sets are found by name or path, sampled the same way every time, and kept apart."""

from pathlib import Path

import numpy as np
import pytest

from onnxslim_bert.calibration.columns import Scores
from onnxslim_bert.calibration.dataset import Dataset
from onnxslim_bert.calibration.glue import GLUE
from onnxslim_bert.calibration.loading import is_named, load_dataset
from onnxslim_bert.calibration.splitting import check_disjoint, holdout
from onnxslim_bert.errors import DataError

COLUMNS = {
    "cola": "sentence",
    "sst2": "sentence",
    "mrpc": "sentence1\tsentence2",
    "stsb": "sentence1\tsentence2",
    "qqp": "question1\tquestion2",
    "mnli": "premise\thypothesis",
    "qnli": "question\tsentence",
    "rte": "sentence1\tsentence2",
    "wnli": "sentence1\tsentence2",
    "ax": "premise\thypothesis",
}


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An $ONNXSLIM_DATA in which every GLUE set has a split of two rows for each purpose."""
    monkeypatch.setenv("ONNXSLIM_DATA", str(tmp_path))
    for name, columns in COLUMNS.items():
        folder = tmp_path / name
        folder.mkdir()
        texts = "\t".join(f"{column} {{0}}" for column in columns.split("\t"))
        label = "-1" if name == "ax" else "1"
        for split in {GLUE[name].calibration, GLUE[name].evaluation}:
            rows = "".join(f"{texts.format(f'{split} {row}')}\t{label}\n" for row in range(2))
            (folder / f"{split}.tsv").write_text(f"{columns}\tlabel\n{rows}")
    return tmp_path


def texts_dataset(*texts: str, labels: list[int] | None = None) -> Dataset:
    numbers = None if labels is None else np.array(labels, np.int64)
    return Dataset("set", "all", tuple((text,) for text in texts), numbers, None if labels is None else "accuracy")


@pytest.mark.parametrize("name", GLUE)
def test_every_glue_set_loads_with_its_columns_labels_and_metric(data: Path, name: str) -> None:
    """Train calibrates, validation evaluates; only ax has no labels."""
    task = GLUE[name]
    calibration, evaluation = load_dataset(name, "calibration"), load_dataset(name, "evaluation")
    assert (calibration.split, evaluation.split) == (task.calibration, task.evaluation)
    assert calibration.name == evaluation.name == name
    assert calibration.texts[1] == tuple(f"{column} {task.calibration} 1" for column in COLUMNS[name].split("\t"))
    if name == "ax":
        assert calibration.labels is None
        assert calibration.metric is None
    else:
        assert calibration.metric == task.metric
        assert calibration.labels is not None
        assert calibration.labels.dtype == ("float32" if isinstance(task.labels, Scores) else "int64")
        assert calibration.labels.tolist() == [1, 1]


def test_dev_stands_for_validation(data: Path) -> None:
    (data / "sst2/validation.tsv").rename(data / "sst2/dev.tsv")
    assert load_dataset("SST-2", "evaluation").split == "dev"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("sst2", "sentence\tlabel\ngood\t2\n", "train.tsv, row 1: label 2 is out of range: needed a class from 0 to 1"),
        ("sst2", "sentence\ngood\n", "found no labels"),
        ("sst2", "sentence\tlabel\ngood\t-1\n", "found no labels"),
        ("stsb", "sentence1\tsentence2\tscore\na\tb\tnan\n", "row 1: label nan is out of range"),
        ("stsb", "sentence\tscore\na\t5\n", "'stsb' needs 2 of text"),
    ],
)
def test_a_faulty_glue_file_is_refused(data: Path, name: str, content: str, message: str) -> None:
    (data / name / "train.tsv").write_text(content)
    with pytest.raises(DataError, match=message):
        load_dataset(name, "calibration")


def test_reviews_are_balanced_distinct_and_disjoint() -> None:
    """Half calibrates and half evaluates, each with as many good as bad reviews of 4 to 45 words."""
    halves = load_dataset("reviews", "calibration"), load_dataset("reviews", "evaluation")
    check_disjoint(*halves)
    for half in halves:
        assert len(half) >= 240
        assert half.metric == "accuracy"
        assert half.labels is not None
        assert half.labels.mean() == 0.5
        words = [len(text.split()) for (text,) in half.texts]
        assert min(words) >= 4
        assert max(words) <= 45
        assert len({text.casefold() for (text,) in half.texts}) == len(half)


def test_a_path_gives_the_same_rows_for_both_purposes(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("title,text,stars\nA,good,5\nB,bad,1\n")
    dataset = load_dataset(str(path), "calibration", text_columns=["title", "text"], label_column="stars")
    assert (dataset.name, dataset.texts, dataset.metric) == ("mine.csv", (("A", "good"), ("B", "bad")), "accuracy")
    same = load_dataset(str(path), "evaluation", text_columns=["title", "text"], label_column="stars")
    assert same.fingerprint() == dataset.fingerprint()


def test_columns_that_are_not_read_are_told(tmp_path: Path) -> None:
    """But for numbers of rows, and where the columns are named; pairs on which nobody agreed are left out."""
    path = tmp_path / "mine.csv"
    path.write_text("pair_id,Question,answer,sentiment,\n1,good?,yes,a,0\n2,bad?,no,-,1\n")
    seen = load_dataset(str(path), "evaluation")
    assert (seen.texts, seen.names) == ((("good?",),), ("a",))
    read = "columns read: Question, sentiment; not read: answer (--text-column, --label-column)"
    assert seen.notes == ("1 row with the label - left out", read)
    named = load_dataset(str(path), "evaluation", text_columns=["Question", "answer"], label_column="sentiment")
    assert named.notes == seen.notes[:1]


def test_texts_alone_are_enough(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("good\nbad\n")
    dataset = load_dataset(str(path), "calibration")
    assert dataset.labels is None
    assert dataset.metric is None
    assert len(dataset) == 2
    with pytest.raises(DataError, match="no column 'label': its columns are text"):
        load_dataset(str(path), "evaluation", label_column="label")


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["good|1", "bad|0", "fine|1", "dull|0"], "each line ends in '|' and one of 2 words"),
        (["so good\tpositive", "so dull\tnegative", "no\tnegative", "a\tpositive"], r"each line ends in '\t'"),
        (["good, really", "bad, really so", "fine, really", "dull, really"], ""),
        (["good|1", "bad", "fine|1", "dull|0"], ""),
        (["a,b", "c,d", "e,f", "g,h"], ""),
    ],
)
def test_lines_that_seem_to_end_in_a_label_are_told(tmp_path: Path, lines: list[str], said: str) -> None:
    """A txt file holds texts alone; they are read whole."""
    path = tmp_path / "mine.txt"
    path.write_text("\n".join(lines))
    seen = load_dataset(str(path), "evaluation")
    assert (seen.texts, seen.labels) == (tuple((line,) for line in lines), None)
    assert len(seen.notes) == bool(said)
    assert said in "".join(seen.notes)


def test_npz_gives_feeds_and_its_labels(tmp_path: Path) -> None:
    path = tmp_path / "ready.npz"
    np.savez(path, input_ids=np.arange(15).reshape(3, 5), labels=np.array([0.5, 1.5, 2.5]))
    dataset = load_dataset(str(path), "evaluation", rows=2)
    assert len(dataset) == 2
    assert dataset.texts == ()
    assert dataset.metric == "pearson-spearman"
    assert dataset.feeds is not None
    assert list(dataset.feeds) == ["input_ids"]
    assert dataset.feeds["input_ids"].shape == (2, 5)
    np.savez(path, labels=np.array([1, 2]))
    with pytest.raises(DataError, match="found only labels"):
        load_dataset(str(path), "evaluation")


def test_labels_that_are_demanded_must_not_be_held_back(tmp_path: Path) -> None:
    path = tmp_path / "test.tsv"
    path.write_text("text\tlabel\na\t-1\nb\t-1\n")
    assert load_dataset(str(path), "calibration").labels is None
    with pytest.raises(DataError, match="every label in 'label' is -1"):
        load_dataset(str(path), "evaluation", label_column="label")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("sst3", "no data set and no file is called 'sst3': did you mean 'sst2'"),
        ("nothing/like/it.tsv", "the named sets are cola, sst2"),
        (".", "is a folder: needed one file in it"),
    ],
)
def test_an_unknown_set_is_refused(spec: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_dataset(spec, "calibration")


def test_a_sample_is_seeded_and_in_file_order() -> None:
    """Without replacement: as many distinct rows as asked, the same ones for the same seed."""
    everything = load_dataset("reviews", "calibration")
    sample = load_dataset("reviews", "calibration", rows=31, seed=5)
    positions = [everything.texts.index(row) for row in sample.texts]
    assert len(positions) == 31
    assert positions == sorted(set(positions))
    assert load_dataset("reviews", "calibration", rows=31, seed=5).fingerprint() == sample.fingerprint()
    assert load_dataset("reviews", "calibration", rows=31, seed=6).fingerprint() != sample.fingerprint()
    assert len(load_dataset("reviews", "calibration", rows=10_000)) == len(everything)
    with pytest.raises(DataError, match="0 rows of 'reviews' asked for"):
        load_dataset("reviews", "calibration", rows=0)


def test_a_fingerprint_covers_texts_their_borders_and_labels() -> None:
    base = Dataset("set", "all", (("a", "bc"),), np.array([1]), "accuracy")
    moved = Dataset("set", "all", (("ab", "c"),), np.array([1]), "accuracy")
    relabelled = Dataset("set", "all", (("a", "bc"),), np.array([0]), "accuracy")
    renamed = Dataset("other", "dev", (("a", "bc"),), np.array([1]), "accuracy")
    fed = Dataset("set", "all", (), np.array([1]), "accuracy", {"input_ids": np.ones((1, 3))})
    assert len({base.fingerprint(), moved.fingerprint(), relabelled.fingerprint(), fed.fingerprint()}) == 4
    assert renamed.fingerprint() == base.fingerprint()


def test_shared_rows_are_found_spaces_and_case_apart() -> None:
    """The message counts them and shows one; `without` removes them."""
    calibration, evaluation = texts_dataset("One", "two", "a  good film"), texts_dataset("A good film ", "one", "four")
    with pytest.raises(DataError, match="2 of 3 calibration rows are evaluation rows too, such as 'One'"):
        check_disjoint(calibration, evaluation)
    rest = calibration.without(evaluation)
    assert rest.texts == (("two",),)
    check_disjoint(rest, evaluation)


def test_shared_feeds_are_found() -> None:
    ids = np.arange(15).reshape(3, 5)
    calibration = Dataset("a", "all", (), None, None, {"input_ids": ids})
    evaluation = Dataset("b", "all", (), None, None, {"input_ids": ids[1:] * [[1], [2]]})
    with pytest.raises(DataError, match="1 of 3 calibration rows are evaluation rows too, such as row 2"):
        check_disjoint(calibration, evaluation)


def test_a_holdout_is_disjoint_even_when_rows_repeat() -> None:
    dataset = texts_dataset(*"abcdabcdab", labels=list(range(10)))
    kept, held = holdout(dataset, 0.25, seed=3)
    check_disjoint(kept, held)
    assert len(kept) + len(held) == 10
    assert len({text for (text,) in held.texts}) == 1
    assert kept.labels is not None
    assert kept.labels.tolist() == sorted(kept.labels.tolist())
    assert holdout(dataset, 0.25, seed=3)[1].fingerprint() == held.fingerprint()
    with pytest.raises(DataError, match="'set' has 1 distinct row: needed 2"):
        holdout(texts_dataset("a", "A"), 0.5, seed=0)


@pytest.mark.parametrize(
    ("name", "form", "task"),
    [
        ("tags", "words", "tags"),
        ("answers", "passages", "answers"),
        ("similarity", "texts", ""),
        ("retrieval", "texts", "retrieval"),
    ],
)
def test_sets_that_are_built_in_serve_their_task(name: str, form: str, task: str) -> None:
    """150 distinct rows or more, half to calibrate and half to judge, which say what is right."""
    calibration, evaluation = load_dataset(name, "calibration"), load_dataset(name, "evaluation")
    assert is_named(name)
    assert len(calibration) == len(evaluation) >= 75
    check_disjoint(calibration, evaluation)
    for half in (calibration, evaluation):
        assert (half.form, half.task) == (form, task)
        assert len(set(half.texts)) == len(half) or name in ("tags", "answers")
    assert evaluation.is_labelled
    if name == "tags":
        assert evaluation.gold is not None
        assert {tag for row in evaluation.gold for tag in row} == {
            "O",
            *(f"{p}-{k}" for p in "BI" for k in ("PER", "LOC", "ORG")),
        }
    if name == "answers":
        assert evaluation.gold is not None
        for (_, passage), right in zip(evaluation.texts, evaluation.gold, strict=True):
            assert all(answer in passage for answer in right)
        assert 0 < sum(not right for right in evaluation.gold) < len(evaluation) / 2
    if name == "similarity":
        assert evaluation.labels is not None
        assert (evaluation.labels.min(), evaluation.labels.max()) == (0, 5)
    if name == "retrieval":
        assert len(evaluation.pool) == len(evaluation)
