"""The data of a job: a few rows that are in both sets are left out and told of, many are refused later.

A file that nothing else judges is parted.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from onnxslim_bert.calibration.splitting import check_disjoint
from onnxslim_bert.errors import DataError
from onnxslim_bert.inspection.verify.rows_again import rows_again
from onnxslim_bert.job.data import Sources
from onnxslim_bert.job.measured import Asked


def files(folder: Path, rows: int, shared: int) -> Sources:
    """`rows` calibration texts, the first `shared` of which are evaluation texts, too."""
    (folder / "calib.txt").write_text("".join(f"text {number}\n" for number in range(rows)))
    (folder / "eval.txt").write_text("".join(f"Text  {number}\n" for number in [*range(shared), *range(900, 950)]))
    return Sources(str(folder / "calib.txt"), str(folder / "eval.txt"))


@pytest.mark.parametrize(("rows", "shared"), [(256, 1), (256, 2), (500, 5)])
def test_a_few_shared_rows_are_left_out(tmp_path, rows, shared):
    """With a word, and the same rows are found again when a model is verified."""
    sources = files(tmp_path, rows, shared)
    calibration, evaluation = sources.load(0)
    assert calibration is not None
    assert evaluation is not None
    check_disjoint(calibration, evaluation)
    assert (len(calibration), len(evaluation)) == (rows - shared, 50 + shared)
    plural = "s" * (shared > 1)
    assert evaluation.notes == (f"{shared} calibration row{plural} of {rows} left out, as evaluated on",)
    found = rows_again(Asked.of(sources, evaluated=True), 0, tmp_path, {})["calibration"]
    assert not isinstance(found, DataError)
    assert found.fingerprint() == calibration.fingerprint()


@pytest.mark.parametrize(("rows", "shared"), [(40, 1), (256, 3), (256, 256)])
def test_many_shared_rows_are_kept_to_be_refused(tmp_path, rows, shared):
    """More than one in a hundred is a mistake in the files."""
    calibration, evaluation = files(tmp_path, rows, shared).load(0)
    assert calibration is not None
    assert evaluation is not None
    assert (len(calibration), evaluation.notes) == (rows, ())
    with pytest.raises(DataError, match=f"{shared} of {rows} calibration rows are evaluation rows too"):
        check_disjoint(calibration, evaluation)


def written(folder: Path, kind: str, rows: int = 40) -> Path:
    """A file of `rows` rows of a kind; the first two differ in spaces and case alone."""
    words = ["Same  text", "same text", *(f"text {number}" for number in range(2, rows))]
    path = folder / kind
    match path.suffix:
        case ".txt":
            path.write_text("\n".join(words))
        case ".csv":
            path.write_text("text,label\n" + "".join(f"{word},{place % 2}\n" for place, word in enumerate(words)))
        case ".tsv":  # five passages a query
            lines = [f"query {place // 5}\t{word}\t{int(place % 5 == 0)}" for place, word in enumerate(words)]
            path.write_text("\n".join(["query\tpassage\tlabel", *lines]))
        case ".jsonl":
            tags = [{"tokens": word.split(), "tags": ["O"] * len(word.split())} for word in words]
            path.write_text("\n".join(map(json.dumps, tags)))
        case ".npz":
            np.savez(path, ids=np.arange(rows * 3).reshape(rows, 3))
    return path


@pytest.mark.parametrize("kind", ["a.txt", "a.csv", "a.tsv", "a.jsonl", "a.npz"])
@pytest.mark.parametrize("rows", [None, 7])
def test_a_file_alone_gives_both_sides(tmp_path, kind, rows):
    """Half of it judges, none of which calibrates, and the same rows are found again when a model is verified."""
    sources = Sources(str(written(tmp_path, kind)), rows=rows)
    calibration, evaluation = sources.load(3)
    assert calibration is not None
    assert evaluation is not None
    check_disjoint(calibration, evaluation)
    assert len(evaluation) in (19, 20, 21)
    sampled = 10 if kind == "a.tsv" else 7  # whole queries
    assert len(calibration) == (40 - len(evaluation) if rows is None else sampled)
    said = f"{kind}: {len(calibration)} rows calibrate, {len(evaluation)} others judge, held back of the file"
    assert evaluation.notes == (said,)
    assert evaluation.is_labelled is (kind not in ("a.txt", "a.npz"))
    if kind == "a.tsv":
        assert not {row[0] for row in calibration.texts} & {row[0] for row in evaluation.texts}
    asked = Asked.of(sources, evaluated=True)
    assert (asked.held_back, asked.evaluation) == (True, "")
    found = rows_again(asked, 3, tmp_path, {})
    for name, these in (("calibration", calibration), ("evaluation", evaluation)):
        again = found[name]
        assert not isinstance(again, DataError)
        assert again.fingerprint() == these.fingerprint()


@pytest.mark.parametrize("moved", ["calibration", "evaluation"])
def test_a_parted_file_is_found_where_either_side_is_said_to_be(tmp_path, moved):
    """One file holds both; without it, both are missing."""
    asked = Asked.of(Sources(str(written(tmp_path, "a.txt"))), evaluated=True)
    (tmp_path / "a.txt").rename(tmp_path / "b.txt")
    missing = rows_again(asked, 0, tmp_path, {})
    assert all(isinstance(missing[name], DataError) for name in ("calibration", "evaluation"))
    found = rows_again(asked, 0, tmp_path, {moved: str(tmp_path / "b.txt")})
    assert not any(isinstance(found[name], DataError) for name in ("calibration", "evaluation"))


def test_a_large_file_judges_with_a_thousand_rows(tmp_path):
    """A large file is not answered twice as a whole."""
    calibration, evaluation = Sources(str(written(tmp_path, "a.txt", 5000))).load(0)
    assert evaluation is not None
    assert calibration is not None
    assert (len(calibration), len(evaluation)) == (4000, 1000)


@pytest.mark.parametrize(
    ("texts", "own_split"), [(["a"] * 40, True), (list("abcdefghijklmno"), True), (list("abcdefghijklmnopqrst"), False)]
)
def test_nothing_is_held_back(tmp_path, texts, own_split):
    """Of a file with few distinct rows, or where only named rows are to judge."""
    (tmp_path / "a.txt").write_text("\n".join(texts))
    calibration, evaluation = Sources(str(tmp_path / "a.txt"), own_split=own_split).load(0)
    assert calibration is not None
    assert (len(calibration), evaluation) == (len(texts), None)


def test_labels_that_cannot_be_read_judge_nothing(tmp_path):
    """The file calibrates all the same, and the line says why; a named column must hold labels."""
    path = tmp_path / "a.tsv"
    lines = [f"text {row}\t{'' if row % 2 else row}" for row in range(20)]
    path.write_text("text\tlabel\n" + "\n".join(lines))
    _, evaluation = Sources(str(path)).load(0)
    assert evaluation is not None
    assert evaluation.labels is None
    assert evaluation.notes[1].startswith("its labels judge nothing: ")
    with pytest.raises(DataError, match="label"):
        Sources(str(path), label_column="label").load(0)


def test_what_was_asked_of_the_task_is_recorded():
    """And is not there where nothing was asked."""
    asked = Asked.of(Sources("a.txt", inputs="ids=x", task="tags", output="logits"), evaluated=False)
    assert (asked.inputs, asked.task, asked.output) == ("ids=x", "tags", "logits")
