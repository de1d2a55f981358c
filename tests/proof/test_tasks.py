"""Every task from its file to its verdict: what is right is found, what is damaged fails, what does not fit is said."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from answering_models import WORDS, classifier, configured, embedder, per_token, reading
from onnx import TensorProto, helper, numpy_helper

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.dataset import Dataset
from onnxslim_bert.calibration.loading import load_dataset
from onnxslim_bert.errors import AccuracyGateError, DataError, ModelError
from onnxslim_bert.proof.gates import Budgets, enforce
from onnxslim_bert.proof.validate import validate

RNG = np.random.default_rng(2)
SENTENCES = [[f"w{word}" for word in RNG.integers(0, WORDS, RNG.integers(2, 9))] for _ in range(60)]
TAGS = ("O", "B-PER", "I-PER", "B-LOC")
# w0 to w3 are outside, w4 begins a person, w5 goes on with one, w6 is a place.
TAG_OF = [0, 0, 0, 0, 1, 2, 3]
TAGGER = np.eye(4, dtype=np.float32)[[0, *TAG_OF]] * 5


def tagged(folder: Path, form: str) -> Dataset:
    """The sentences with their right tags, as CoNLL columns, JSON lines of words, or of the numbers of tags; declared:
    as a page of the hub's server, which names tags in an order of its own.
    """
    rows = [(words, [TAGS[TAG_OF[int(word[1:])]] for word in words]) for words in SENTENCES]
    if form == "conll":
        path = folder / "rows.conll"
        lines = ["\n".join(f"{word} X {tag}" for word, tag in zip(*row, strict=True)) for row in rows]
        path.write_text("-DOCSTART- X O\n\n" + "\n\n".join(lines) + "\n")
    elif form == "declared":
        path = page(folder, "ner_tags", TAGS[::-1], [{"tokens": words, "ner_tags": tags} for words, tags in rows])
    else:
        path = folder / "rows.jsonl"
        written = [(words, [TAGS.index(tag) for tag in tags] if form == "numbers" else tags) for words, tags in rows]
        path.write_text("\n".join(json.dumps({"tokens": words, "ner_tags": tags}) for words, tags in written))
    return load_dataset(str(path), "evaluation")


def page(folder: Path, column: str, names: Sequence[str], rows: Sequence[dict[str, object]]) -> Path:
    """A file of `rows` as the hub's server pages through them; in `column` lists of names, as numbers there."""
    kind = {"feature": {"names": names, "_type": "ClassLabel"}, "_type": "Sequence"}
    numbered = [{"row": row | {column: [names.index(name) for name in row[column]]}} for row in rows]
    path = folder / "page.json"
    path.write_text(json.dumps({"features": [{"name": column, "type": kind}], "rows": numbered}))
    return path


@pytest.mark.parametrize("form", ["conll", "jsonl", "numbers", "declared"])
@pytest.mark.parametrize("batch", [1, 7])
def test_tags_of_words(tmp_path, form, batch):
    """Entity F1 judges first; a candidate that loses a tag fails, and its worst sentences are named."""
    reader = configured(tmp_path, "ForTokenClassification", TAGS)
    base = per_token(tmp_path / "m.onnx", TAGGER, ("logits",))
    rows = tagged(tmp_path, form)
    assert rows.task == "tags"
    result = validate(base, base, rows, reader, Budgets(max_drop=20, min_agreement=90), batch_size=batch)
    seen = result.comparison
    assert [(score.metric, score.base.value) for score in seen.scores] == [("entity-f1", 100), ("token-accuracy", 100)]
    assert (seen.kind, seen.output) == ("tokens", "logits")
    assert [f"0 is {TAGS[0]}, 1 is {TAGS[1]}" in note for note in seen.notes] == [True] * (form == "numbers")
    assert [verdict.outcome for verdict in result.verdicts] == ["met", "met", "met"]
    lost = TAGGER.copy()
    lost[5] = TAGGER[1]  # w4
    worse = per_token(tmp_path / "worse.onnx", lost, ("logits",))
    found = validate(base, worse, rows, reader, Budgets(max_drop=20), batch_size=batch)
    words = [word for sentence in SENTENCES for word in sentence]
    assert found.comparison.scores[1].candidate.value == pytest.approx(100 * (1 - words.count("w4") / len(words)))
    assert found.comparison.fidelity.whole.value == pytest.approx(100 * np.mean(["w4" not in s for s in SENTENCES]))
    with pytest.raises(AccuracyGateError, match="max-drop missed"):
        enforce(found.verdicts)


def test_words_that_the_tokenizer_does_not_read_shift_no_tags(tmp_path):
    """They judge nothing, as sentences without words; the tags of all others stay theirs."""
    reader = configured(tmp_path, "ForTokenClassification", TAGS)
    base = per_token(tmp_path / "m.onnx", TAGGER, ("logits",))
    path = tmp_path / "rows.jsonl"
    odd = [(["\t", "w4", "", "w5 w5", "w6"], [2, 1, 1, 2, 3]), ([], []), (["w4", "\u3000"], [1, 3])]
    path.write_text("\n".join(json.dumps({"tokens": words, "ner_tags": tags}) for words, tags in odd))
    seen = validate(base, base, load_dataset(str(path), "evaluation"), reader).comparison
    assert [score.base.value for score in seen.scores] == [100, 100]
    assert seen.fidelity.agreement is not None
    assert seen.notes[:2] == (
        "1 sentence without words left out",
        "3 words left out, of which the tokenizer keeps nothing",
    )


def test_tags_that_the_model_does_not_have_are_refused(tmp_path):
    """With both lists."""
    reader = configured(tmp_path, "ForTokenClassification", ("O", "B-ORG", "I-ORG", "B-MISC"))
    base = per_token(tmp_path / "m.onnx", TAGGER, ("logits",))
    with pytest.raises(DataError, match=r"has the labels B-LOC, B-PER, I-PER: the model's classes are O, B-ORG"):
        validate(base, base, tagged(tmp_path, "conll"), reader)


def test_tags_need_a_tagger(tmp_path):
    """A classifier on tagged words is one line that says both."""
    reader = reading(tmp_path)
    base = classifier(tmp_path / "m.onnx", TAGGER)
    with pytest.raises(
        DataError, match=r"task 'tags' needs logits \[rows, tokens, classes\]: the model answers logits"
    ):
        validate(base, base, tagged(tmp_path, "conll"), reader)


@pytest.mark.parametrize("length", [8, 12, 128])
def test_answers_in_passages(tmp_path, length):
    """w4 begins and w5 ends the answer; long passages are read in windows, and no answer is an answer."""
    reader = configured(tmp_path, "ForQuestionAnswering")
    table = np.full((WORDS + 1, 2), -5, np.float32)
    table[5, 0] = table[6, 1] = 5  # w4 starts, w5 ends
    table[1] = 4  # w0, the first token, stands for no answer
    base = per_token(tmp_path / "m.onnx", table, ("start_logits", "end_logits"), squeezed=True)
    filler = " ".join(["w2 w3 w6"] * 5)
    asked = [
        {"question": "w0 w1", "context": f"{filler} w4 w3 w5 {filler}", "answers": [{"text": "w4 w3 w5"}]},
        {"question": "w0 w2", "context": f"w4 w5 {filler}", "answers": [{"text": "w4 w5"}, {"text": "w6"}]},
        {"question": "w0 w3", "context": filler, "answers": []},
    ]
    qas = [{"context": each.pop("context"), "qas": [each]} for each in asked]
    path = tmp_path / "squad.json"
    path.write_text(json.dumps({"data": [{"paragraphs": qas}]}))
    rows = load_dataset(str(path), "evaluation")
    seen = validate(base, base, rows, replace(reader, max_length=length), batch_size=2).comparison
    assert [(score.metric, score.base.value) for score in seen.scores] == [
        (name, 100) for name in ("exact-match", "answer-f1", "best-exact-match", "best-answer-f1")
    ]
    assert seen.notes[-2:] == tuple(  # a wrong span leads by 0 - 8 at most, the right one by 10 - 8
        f"{name}: no answer where it leads by more than -2 -> -2, chosen on these rows"
        for name in ("best-exact-match", "best-answer-f1")
    )
    worse = table.copy()
    worse[6, 1], worse[4, 1] = -5, 5  # w3 ends
    lost = per_token(tmp_path / "worse.onnx", worse, ("start_logits", "end_logits"), squeezed=True)
    found = validate(base, lost, rows, replace(reader, max_length=length)).comparison
    assert found.scores[0].candidate.value == pytest.approx(100 / 3)
    assert found.fidelity.agreement.value == pytest.approx(100 / 3)


def test_pairs_go_to_a_model_of_embeddings_apart(tmp_path):
    """Their cosines are held against the scores; nothing that is fed holds both."""
    reader = configured(tmp_path, "Model")
    table = RNG.normal(size=(WORDS + 1, 5)).astype(np.float32)
    base = embedder(tmp_path / "m.onnx", table)
    pairs = [(" ".join(first), " ".join(second)) for first, second in zip(SENTENCES[:30], SENTENCES[30:], strict=True)]
    means = [[table[[int(w[1:]) + 1 for w in text.split()]].mean(axis=0) for text in pair] for pair in pairs]
    cosines = [float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) for a, b in means]
    path = tmp_path / "pairs.jsonl"
    lines = [{"sentence1": a, "sentence2": b, "score": c} for (a, b), c in zip(pairs, cosines, strict=True)]
    path.write_text("\n".join(map(json.dumps, lines)))
    rows = load_dataset(str(path), "evaluation")
    seen = validate(base, base, rows, reader, batch_size=4).comparison
    assert [(score.metric, round(score.base.value, 4)) for score in seen.scores] == [
        ("spearman", 100),
        ("pearson", 100),
    ]
    assert seen.fidelity.rows == 60
    noisy = embedder(tmp_path / "n.onnx", table + RNG.normal(size=table.shape).astype(np.float32))
    result = validate(base, noisy, rows, reader, Budgets(max_drop=1))
    with pytest.raises(AccuracyGateError, match="max-drop missed"):
        enforce(result.verdicts)


@pytest.mark.parametrize("pooling", ["mean_tokens", "cls_token", "max_tokens", "lasttoken"])
def test_token_states_are_pooled_as_the_folder_says(tmp_path, pooling):
    """modules.json and 1_Pooling/config.json."""
    from onnxslim_bert.proof.evaluation import evaluate

    reader = configured(tmp_path, "ForMaskedLM")
    (tmp_path / "modules.json").write_text("[]")
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps({f"pooling_mode_{pooling}": True}))
    table = RNG.normal(size=(WORDS + 1, 5)).astype(np.float32)
    rows = Dataset("rows", "dev", tuple((" ".join(words),) for words in SENTENCES[:9]), None, None)
    found = evaluate(embedder(tmp_path / "m.onnx", table), rows, reader, batch_size=4)
    states = [table[[int(word[1:]) + 1 for word in words]] for words in SENTENCES[:9]]
    pool = {
        "mean_tokens": lambda s: s.mean(axis=0),
        "max_tokens": lambda s: s.max(axis=0),
        "cls_token": lambda s: s[0],
        "lasttoken": lambda s: s[-1],
    }[pooling]
    np.testing.assert_allclose(found.values, [pool(each) for each in states], atol=1e-6)


def answering(path: Path, table: Array, op: str, dtype: int, shape: tuple[object, ...], **attributes: object) -> Path:
    """What `op` makes of the logits of a classifier."""
    proto = onnx.load(classifier(path, table, output="inner"))
    del proto.graph.output[:]
    if op == "Squeeze":
        proto.graph.initializer.append(numpy_helper.from_array(np.array([1]), "one"))
    inputs = ["inner", "one"] if op == "Squeeze" else ["inner"]
    proto.graph.node.append(helper.make_node(op, inputs, ["answer"], **attributes))
    proto.graph.output.append(helper.make_tensor_value_info("answer", dtype, shape))
    onnx.save(proto, path)
    return path


@pytest.mark.parametrize("batch", [1, 5])
def test_a_squeezed_score(tmp_path, batch):
    """[rows] is one score a row, judged by correlation."""
    reader = reading(tmp_path)
    table = RNG.normal(size=(WORDS + 1, 1)).astype(np.float32)
    base = answering(tmp_path / "m.onnx", table, "Squeeze", TensorProto.FLOAT, ("batch",))
    scores = [float(table[[int(word[1:]) + 1 for word in words]].sum()) for words in SENTENCES]
    texts = tuple((" ".join(words),) for words in SENTENCES)
    rows = Dataset("rows", "dev", texts, np.array(scores, np.float32), "pearson-spearman")
    seen = validate(base, base, rows, reader, Budgets(max_drop=20), batch_size=batch).comparison
    assert (seen.kind, round(seen.scores[0].base.value, 3)) == ("score", 100)


@pytest.mark.parametrize("keepdims", [0, 1])
def test_a_model_that_answers_the_class(tmp_path, keepdims):
    """Its numbers are compared; a candidate that answers others fails."""
    reader = reading(tmp_path)
    shape = ("batch", 1) if keepdims else ("batch",)
    sides = {"axis": 1, "keepdims": keepdims}
    base = answering(tmp_path / "m.onnx", TAGGER, "ArgMax", TensorProto.INT64, shape, **sides)
    texts = tuple((" ".join(words),) for words in SENTENCES)
    right = [int(np.argmax(sum(TAGGER[int(word[1:]) + 1] for word in words))) for words in SENTENCES]
    rows = Dataset("rows", "dev", texts, np.array(right), "accuracy")
    seen = validate(base, base, rows, reader, Budgets(max_drop=20)).comparison
    assert (seen.kind, seen.scores[0].base.value, seen.fidelity.agreement.value) == ("classes", 100, 100)
    worse = answering(tmp_path / "w.onnx", TAGGER[::-1].copy(), "ArgMax", TensorProto.INT64, shape, **sides)
    with pytest.raises(AccuracyGateError, match="min-agreement missed"):
        enforce(validate(base, worse, rows, reader, Budgets(min_agreement=90)).verdicts)


@pytest.mark.parametrize("declared", [False, True])
def test_labels_of_which_several_hold(tmp_path, declared):
    """Micro F1 judges first; the ranking of the labels is told beside it."""
    names = ("a", "b", "c")
    more = {"problem_type": "multi_label_classification"}
    reader = configured(tmp_path, "ForSequenceClassification", names, **more)
    table = RNG.normal(size=(WORDS + 1, 3)).astype(np.float32)
    base = classifier(tmp_path / "m.onnx", table)
    sums = [table[[int(word[1:]) + 1 for word in words]].sum(axis=0) for words in SENTENCES]
    lines = [
        {"text": " ".join(words), "labels": [name for name, value in zip(names, each, strict=True) if value > 0]}
        for words, each in zip(SENTENCES, sums, strict=True)
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    path = page(tmp_path, "labels", ("c", "a", "b"), lines) if declared else path
    rows = load_dataset(str(path), "evaluation")
    seen = validate(base, base, rows, reader, Budgets(max_drop=20)).comparison
    assert [(score.metric, score.base.value) for score in seen.scores] == [
        ("micro-f1", 100),
        ("macro-f1", 100),
        ("label-ranking", 100),
    ]
    worse = validate(base, classifier(tmp_path / "w.onnx", -table), rows, reader).comparison
    assert (worse.scores[0].candidate.value, worse.fidelity.agreement.value) == (0, 0)
    expected = [precision_of(-each, each > 0) for each in sums]
    assert worse.scores[2].candidate.value == pytest.approx(100 * np.mean(expected))


def test_labels_in_a_column_each(tmp_path):
    """The same rows as lists; columns that are not there or hold something else are named."""
    path = tmp_path / "rows.csv"
    path.write_text("text,toxic,rude,mild\nw1 w2,1,0,1\nw3,0,0,0\nw4 w5,0,1,0\n")
    data = load_dataset(str(path), "evaluation", label_column="toxic,rude")
    assert (data.task, data.gold) == ("multi-label", (("toxic",), (), ("rude",)))
    with pytest.raises(DataError, match="no column 'gone': its columns are text, toxic, rude, mild"):
        load_dataset(str(path), "evaluation", label_column="toxic,gone")
    path.write_text("text,toxic,rude\nw1 w2,1,2\n")
    with pytest.raises(DataError, match=r"row 1: 'rude' is '?2'?: needed 0 or 1"):
        load_dataset(str(path), "evaluation", label_column="toxic,rude")
    path = tmp_path / "rows.jsonl"
    path.write_text('{"tokens": ["a"], "tags": ["O"]}\n')
    with pytest.raises(DataError, match="no column 'gone'"):
        load_dataset(str(path), "evaluation", label_column="gone")


def precision_of(scores: Array, holds: Array) -> float:
    """Label ranking average precision of one row, label by label."""
    if not holds.any():
        return 1.0
    places = [(sum(scores >= score), sum(holds & (scores >= score))) for score in scores[holds]]
    return float(np.mean([right / rank for rank, right in places]))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.conll", "word\n", "line 1: one column: needed a word and its tag"),
        ("a.json", "{}", "not SQuAD .KeyError"),
        ("a.json", "[", "needed JSON of SQuAD"),
        ("a.jsonl", '{"tokens": ["a", "b"], "tags": ["O"]}', "row 1: 2 words and 1 tags"),
        ("a.jsonl", '{"tokens": [], "tags": []}', "no words: needed at least one sentence of them"),
        ("a.jsonl", '{"tokens": ["a"], "tags": "O"}', "row 1: 'tags' is 'O': needed a list"),
    ],
)
def test_files_of_another_form_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        load_dataset(str(tmp_path / name), "evaluation")


def test_a_candidate_of_another_task_is_refused(tmp_path):
    """Nothing to compare."""
    reader = reading(tmp_path)
    base = classifier(tmp_path / "m.onnx", TAGGER)
    other = per_token(tmp_path / "t.onnx", TAGGER, ("each",))
    rows = Dataset("rows", "dev", (("w0 w1",),), None, None)
    with pytest.raises(ModelError, match="nothing to compare"):
        validate(base, other, rows, reader)


def test_what_rows_lose_is_said(tmp_path):
    """Texts that are cut, and labels that judge nothing."""
    reader = configured(tmp_path, "Model")
    base = embedder(tmp_path / "m.onnx", RNG.normal(size=(WORDS + 1, 5)).astype(np.float32))
    texts = tuple((" ".join(words),) for words in SENTENCES)
    rows = Dataset("rows", "dev", texts, np.arange(60) % 2, "accuracy")
    seen = validate(base, base, rows, replace(reader, max_length=5)).comparison
    long = sum(len(words) > 5 for words in SENTENCES)
    assert seen.notes == (
        f"longer than 5 tokens and cut: {long} of 60 rows",
        "the labels of 'rows' were not used: they do not judge an embedding of width 5",
    )
    assert validate(base, base, rows, reader).comparison.notes[0].startswith("the labels")


@pytest.mark.parametrize("head", ["sentence\tlabel\nw0", "query\tpassage\tlabel\nw0\tw1\tgood\nw0\tw2\tpoor\nw0"])
def test_names_are_no_scores(tmp_path, head):
    """Neither correlation nor rank has a meaning in the order of the alphabet."""
    base = classifier(tmp_path / "m.onnx", TAGGER[:, :1])
    path = tmp_path / "rows.tsv"
    path.write_text(f"{head}\tw3\tfair\n" if "query" in head else f"{head}\tgood\nw1\tfair\nw2\tpoor\n")
    with pytest.raises(DataError, match=r"has the labels fair, good, poor: needed numbers, as .* answers one score"):
        validate(base, base, load_dataset(str(path), "evaluation"), reading(tmp_path))


def test_the_output_that_is_named_is_judged(tmp_path):
    """Of several, by whichever it would be taken for; a name that is none is refused with those that are."""
    reader = reading(tmp_path)
    path = classifier(tmp_path / "m.onnx", TAGGER)
    proto = onnx.load(path)
    proto.graph.node.append(helper.make_node("Neg", ["logits"], ["opposite"]))
    proto.graph.output.append(helper.make_tensor_value_info("opposite", TensorProto.FLOAT, ("batch", 4)))
    onnx.save(proto, path)
    file = tmp_path / "rows.tsv"
    right = [int(np.argmin(sum(TAGGER[int(word[1:]) + 1] for word in words))) for words in SENTENCES]
    lines = [f"{' '.join(words)}\t{label}" for words, label in zip(SENTENCES, right, strict=True)]
    file.write_text("\n".join(["sentence\tlabel", *lines]))
    seen = validate(path, path, load_dataset(str(file), "evaluation", output="opposite"), reader).comparison
    assert (seen.output, seen.scores[0].base.value) == ("opposite", 100)
    assert validate(path, path, load_dataset(str(file), "evaluation"), reader).comparison.output == "logits"
    with pytest.raises(DataError, match=r"output 'other' is none of the model's: it answers logits, opposite"):
        validate(path, path, load_dataset(str(file), "evaluation", output="other"), reader)


def test_a_cosine_is_held_and_named_where_an_agreement_is_asked_of_embeddings(tmp_path):
    """Each budget says which outputs it is for."""
    reader = configured(tmp_path, "Model")
    base = embedder(tmp_path / "m.onnx", RNG.normal(size=(WORDS + 1, 5)).astype(np.float32))
    rows = Dataset("rows", "dev", tuple((" ".join(words),) for words in SENTENCES), None, None)
    assert validate(base, base, rows, reader, Budgets(min_cosine=0.999)).verdicts[1].outcome == "met"
    with pytest.raises(DataError, match="has no argmax; --min-cosine holds an embedding"):
        validate(base, base, rows, reader, Budgets(min_agreement=90))
    (tmp_path / "config.json").unlink()
    other = classifier(tmp_path / "c.onnx", TAGGER)
    with pytest.raises(DataError, match="a budget for the cosine needs embeddings: logits is 4 classes"):
        validate(other, other, rows, reading(tmp_path), Budgets(min_cosine=0.9))
