"""Multiple choice from its files to its verdicts: endings scored one by one, whatever the shape of the inputs."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from answering_models import WORDS, classifier, configured
from command_line import run, workspace
from onnx import TensorProto, helper, numpy_helper
from oracles import answers, assert_same_answers

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.dataset import Dataset
from onnxslim_bert.calibration.loading import load_dataset
from onnxslim_bert.calibration.splitting import holdout
from onnxslim_bert.errors import AccuracyGateError, DataError, ModelError
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.proof.gates import Budgets, enforce
from onnxslim_bert.proof.validate import validate
from onnxslim_bert.rewriting.contract import Context

RNG = np.random.default_rng(9)
TABLE = RNG.normal(size=(WORDS + 1, 1)).astype(np.float32)
TWO = {"label": ["A", "B"], "text": ["w3", "w4"]}
FORMS = {
    "swag": ("csv", "sent1,sent2,ending0,ending1,ending2,label\nw1 w2,w0,w3,w4,w5,2\n", ("w0 w3", "w0 w4", "w0 w5"), 2),
    "hellaswag": ("jsonl", {"ctx": "w1 w2", "endings": ["w3", "w4"], "label": "1"}, ("w3", "w4"), 1),
    "commonsense": ("jsonl", {"question": "w1 w2", "choices": TWO, "answerKey": "B"}, ("w3", "w4"), 1),
    "numbered": (
        "jsonl",
        {"question": "w1 w2", "choices": {"label": ["1", "2"], "text": ["w3", "w4"]}, "answerKey": "1"},
        ("w3", "w4"),
        0,
    ),
    "race": (
        "jsonl",
        {"article": "w1 w2", "question": "w0", "options": ["w3", "w4"], "answer": "A"},
        ("w0 w3", "w0 w4"),
        0,
    ),
    "copa": ("csv", "premise,choice1,choice2,question,label\nw1 w2,w3,w4,w0,0\n", ("w0 w3", "w0 w4"), 0),
    "piqa": ("csv", "goal,sol1,sol2,label\nw1 w2,w3,w4,1\n", ("w3", "w4"), 1),
    "mmlu": ("csv", "question,A,B,C,answer\nw1 w2,w3,w4,w5,C\n", ("w3", "w4", "w5"), 2),
    "medmcqa": ("csv", "question,opa,opb,cop\nw1 w2,w3,w4,1\n", ("w3", "w4"), 1),
    "its text": ("jsonl", {"context": "w1 w2", "choices": ["w3", "w4"], "answer": "w4"}, ("w3", "w4"), 1),
    "held back": ("csv", "goal,sol1,sol2,label\nw1 w2,w3,w4,-1\n", ("w3", "w4"), None),
}


def written(folder: Path, suffix: str, content: object) -> str:
    path = folder / f"rows.{suffix}"
    rows = content if isinstance(content, list) else [content]
    path.write_text(content if isinstance(content, str) else "\n".join(map(json.dumps, rows)))
    return str(path)


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_files(tmp_path, form):
    """A context, its endings behind their common beginning, and the number of the right one."""
    suffix, content, endings, right = FORMS[form]
    data = load_dataset(written(tmp_path, suffix, content), "evaluation")
    assert (data.task, data.texts) == ("multiple-choice", (("w1 w2", *endings),))
    assert (None if data.labels is None else data.labels.tolist()) == (None if right is None else [right])


ANSWERED = {
    "letters": (["A", "C"], [0, 2]),
    "from 0": (["0", "2"], [0, 2]),
    "from 1": (["1", "3"], [0, 2]),
    "texts that are numbers": (["3", "9"], [0, 2]),
    "numbers and not texts": (["1", "2"], [1, 2]),
}


@pytest.mark.parametrize("form", ANSWERED)
def test_the_right_ending_is_named_in_one_way_in_all_rows(tmp_path, form):
    """The first that holds in all: 3 is the text of an ending where another row says 9, which numbers none."""
    given, right = ANSWERED[form]
    rows = [{"question": "w1", "options": ["3", "5", "9"], "answer": answer} for answer in given]
    data = load_dataset(written(tmp_path, "jsonl", rows), "evaluation")
    assert data.labels is not None
    assert data.labels.tolist() == right


WRONG = {
    "needed a context": {"ctx": " ", "endings": ["w3", "w4"], "label": 0},
    "1 endings: needed at least 2": {"ctx": "w1", "endings": ["w3"], "label": 0},
    "needed a list of texts": {"ctx": "w1", "endings": ["w3", 4], "label": 0},
    r"'label' is '3': needed a number from 0 to 1": {"ctx": "w1", "endings": ["w3", "w4"], "label": 3},
    r"'answerKey' is 'C': needed one of A, B": {"question": "w1", "choices": TWO, "answerKey": "C"},
    "endings, but no context": {"words": "w1", "endings": ["w3", "w4"], "label": 0},
    "row 2: 1 endings: needed at least 2": [
        {"ctx": "w1", "endings": ["w3", "w4"], "label": 0},
        {"ctx": "w1", "endings": ["w3"], "label": 0},
    ],
    r"row 2: 'label' is '2': needed a number from 0 to 1": [
        {"ctx": "w1", "endings": ["w3", "w4", "w5"], "label": 0},
        {"ctx": "w1", "endings": ["w3", "w4"], "label": 2},
    ],
}


@pytest.mark.parametrize("said", WRONG)
def test_rows_that_are_no_choices_are_refused(tmp_path, said):
    with pytest.raises(DataError, match=said):
        load_dataset(written(tmp_path, "jsonl", WRONG[said]), "evaluation")


def questions(folder: Path, count: int = 40) -> Dataset:
    """Questions with three endings each, of which the second is called right."""
    texts = lambda: " ".join(f"w{word}" for word in RNG.integers(0, WORDS, RNG.integers(2, 7)))  # noqa: E731
    rows = [{"ctx": texts(), "endings": [texts(), texts(), texts()], "label": 1} for _ in range(count)]
    return load_dataset(written(folder, "jsonl", rows), "evaluation")


def by_hand(data: Dataset, table: Array) -> list[int]:
    """The ending whose words, with those of the context, have the largest sum."""
    worth = lambda text: sum(float(table[int(word[1:]) + 1, 0]) for word in text.split())  # noqa: E731
    return [int(np.argmax([worth(ending) for ending in row[1:]])) for row in data.texts]


def choosing(path: Path, table: Array, choices: int | str, tail: str = "") -> Path:
    """The same scores from inputs [batch, choices, length], as [batch, choices]; `tail` is an operator behind them."""
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["states"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["column"]),
        helper.make_node("Mul", ["states", "column"], ["real"]),
        helper.make_node("ReduceSum", ["real", "axes"], ["scores" if tail else "logits"], keepdims=0),
        *([helper.make_node(tail, ["scores"], ["logits"])] if tail else []),
    ]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ("batch", choices, "length"))
        for name in ("input_ids", "attention_mask")
    ]
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ("batch", choices))
    constants = {"table": table, "last": np.array([3]), "axes": np.array([2, 3])}
    weights = [numpy_helper.from_array(values, name) for name, values in constants.items()]
    graph = helper.make_graph(nodes, "choosing", inputs, [output], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


MODELS = {
    "a row a choice": classifier,
    "open choices": lambda path, table: choosing(path, table, "choices"),
    "as many choices as the graph says": lambda path, table: choosing(path, table, 3),
    "half a question a batch": lambda path, table: choosing(path, table, 2),
}


@pytest.mark.parametrize("batch", [1, 6])
@pytest.mark.parametrize("model", MODELS)
def test_accuracy_and_agreement(tmp_path, model, batch):
    """Each ending is scored with its context; a candidate that prefers others misses its budgets."""
    reader, data = configured(tmp_path, "ForMultipleChoice"), questions(tmp_path)
    base = MODELS[model](tmp_path / "m.onnx", TABLE)
    worse = MODELS[model](tmp_path / "w.onnx", -TABLE)
    found = validate(base, worse, data, reader, Budgets(max_drop=1, min_agreement=90), batch_size=batch)
    ours, theirs = np.array(by_hand(data, TABLE)), np.array(by_hand(data, -TABLE))
    score = found.comparison.scores[0]
    assert (score.metric, score.base.value, score.candidate.value) == pytest.approx(
        ("accuracy", 100 * np.mean(ours == 1), 100 * np.mean(theirs == 1))
    )
    assert score.base.low < score.base.value < score.base.high
    assert found.comparison.fidelity.agreement.value == pytest.approx(100 * np.mean(ours == theirs))
    assert found.comparison.taken == "one of 3 endings, by the task 'multiple-choice'"
    with pytest.raises(AccuracyGateError, match="min-agreement missed"):
        enforce(found.verdicts)


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
@pytest.mark.parametrize("model", MODELS)
def test_questions_with_fewer_endings_than_others(tmp_path, model, suffix):
    """They are chosen from by what they have; differences are those of real endings, and one line counts them."""
    rows = [(f"w{n % WORDS}", [f"w{(3 * n + k) % WORDS}" for k in range(2 + n % 3)], n % 2) for n in range(30)]
    if suffix == "jsonl":
        content: object = [{"ctx": ctx, "endings": endings, "label": label} for ctx, endings, label in rows]
    else:
        lines = [",".join([ctx, *endings, *[""] * (4 - len(endings)), str(label)]) for ctx, endings, label in rows]
        content = "\n".join(["ctx,ending0,ending1,ending2,ending3,label", *lines])
    data = load_dataset(written(tmp_path, suffix, content), "evaluation")
    assert data.notes == ("20 of 30 questions have fewer endings than 4, down to 2",)
    reader = configured(tmp_path, "ForMultipleChoice")
    base, worse = MODELS[model](tmp_path / "m.onnx", TABLE), MODELS[model](tmp_path / "w.onnx", -TABLE)
    found = validate(base, worse, data, reader).comparison
    ours, theirs = np.array(by_hand(data, TABLE)), np.array(by_hand(data, -TABLE))
    labels = np.array([label for *_, label in rows])
    assert found.scores[0].base.value == pytest.approx(100 * np.mean(ours == labels))
    assert found.fidelity.agreement.value == pytest.approx(100 * np.mean(ours == theirs))
    words = [[context, ending] for context, endings, _ in rows for ending in endings]
    scores = [sum(float(TABLE[int(word[1:]) + 1, 0]) for word in pair) for pair in words]
    assert found.fidelity.mean_difference == pytest.approx(2 * np.mean(np.abs(scores)), rel=1e-5)
    assert (found.broken, found.notes[0]) == (0, data.notes[0])


def test_scores_that_depend_on_the_choices_beside_them_are_refused(tmp_path):
    """Probabilities of an ending among others cannot be compared one row at a time."""
    reader, data = configured(tmp_path, "ForMultipleChoice"), questions(tmp_path, 4)
    for choices in ("choices", 3):
        base = choosing(tmp_path / f"{choices}.onnx", TABLE, choices, "Softmax")
        with pytest.raises(ModelError, match="depends on the choices beside it, as behind a softmax"):
            validate(base, base, data, reader)


def test_a_model_without_one_score_is_told_so(tmp_path):
    """The line names the task and what the model answers."""
    reader, data = configured(tmp_path, "ForSequenceClassification", ("a", "b", "c")), questions(tmp_path, 4)
    base = classifier(tmp_path / "m.onnx", np.repeat(TABLE, 3, axis=1))
    with pytest.raises(DataError, match="task 'multiple-choice' needs one number a row: the model answers logits"):
        validate(base, base, data, reader)


def test_questions_are_held_out_whole(tmp_path):
    """Endings stay with their context, and go to a model as pairs."""
    data = questions(tmp_path, 20)
    kept, held = holdout(data, 0.25, 0)
    assert (len(kept), len(held)) == (15, 5)
    assert kept.alone().texts[:3] == tuple((kept.texts[0][0], ending) for ending in kept.texts[0][1:])
    assert kept.alone().labels is None


@pytest.mark.parametrize("choices", [3, "choices"])
def test_a_model_of_choices_is_quantized_and_verified(tmp_path, choices):
    """Calibrated on contexts with their endings, proven on its own questions, and proven again."""
    source = with_choices(workspace(tmp_path, "bert-ts17-sdpa"), choices)
    rows = [(f"w{n} w{n % 7}", f"w{n % 5}", f"w{n % 3} w4", "w5 w6 w7", str(n % 3)) for n in range(32)]
    for name, part in (("calib", rows[:20]), ("dev", rows[20:])):
        lines = ["ctx,ending0,ending1,ending2,label", *map(",".join, part)]
        (tmp_path / f"{name}.csv").write_text("\n".join(lines))
    done = run("quantize", source, "--calib", tmp_path / "calib.csv", "--data", tmp_path / "dev.csv", "--json")
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert report["comparison"]["taken"] == "one of 3 endings, by the task 'multiple-choice'"
    assert [score["metric"] for score in report["comparison"]["scores"]] == ["accuracy"]
    small = source.with_name("model.int8.onnx")
    assert small.stat().st_size < source.stat().st_size
    again = run("verify", small)
    assert (again.code, "evaluation rows met" in again.out) == (0, True), again.err


@pytest.mark.parametrize("choices", [3, "choices"])
@pytest.mark.parametrize(
    "name", ["bert-ts17-eager", "bert-dynamo20-sdpa", "roberta-ts17-sdpa", "roberta-dynamo20-sdpa"]
)
def test_attention_behind_choices_is_fused_as_without(tmp_path, name, choices):
    """The rows that inputs are flattened to are what a model of [batch, seq] takes; answers stay."""
    changes = []
    for source in (workspace(tmp_path, name), with_choices(workspace(tmp_path, name), choices)):
        model = Model.load(source)
        Canonicalize().apply(model, Context())
        before = model.clone()
        changes.append(Fuse().apply(model, Context()).count)
    assert changes[0] == changes[1]
    attentions = [node for node in model.graph.nodes if node.op == "MultiHeadAttention"]
    assert len(attentions) == len(model.encoder.layers)
    ids = RNG.integers(6, 30, (2, 3, 7))
    mask = (np.arange(7) < RNG.integers(2, 8, (2, 3, 1))).astype(np.int64)
    given = {"input_ids": np.where(mask, ids, 1), "attention_mask": mask, "token_type_ids": 0 * ids}
    given = {tensor.name: given[tensor.name] for tensor in model.graph.inputs}
    (exact,), (fused,) = (answers(each, [given]) for each in (before, model))
    assert_same_answers(fused, exact, 1e-5)


def test_a_zoo_judges_choices(tmp_path):
    """A job of a zoo file is judged by its accuracy and held to its budgets; questions have two or three endings."""
    with_choices(workspace(tmp_path, "bert-ts17-sdpa"), "choices")
    rows = [f"w{n} w{n % 7},w{n % 5},w{n % 3} w4,{'w5 w6 w7' if n % 2 else ''},{n % 2}" for n in range(40)]
    for name, part in (("calib", rows[:20]), ("dev", rows[20:])):
        (tmp_path / f"{name}.csv").write_text("\n".join(["ctx,ending0,ending1,ending2,label", *part]))
    (tmp_path / "zoo.toml").write_text(
        '[defaults]\ncalib = "calib.csv"\ndata = "dev.csv"\nbudgets = {max-drop = 60, min-agreement = 30}\n'
        '[recipes.int8]\nmethod = "minmax"\n[[models]]\npath = "model.onnx"\n[run]\nstudy = false\ntime = false\n'
    )
    done = run("zoo", "run", tmp_path / "zoo.toml", "-o", tmp_path / "out")
    assert done.code == 0, done.err
    (row,) = json.loads((tmp_path / "out" / "run.json").read_text())["rows"]
    assert row["status"] == "done"
    seen = row["result"]["comparison"]
    found = (seen["taken"], seen["scores"][0]["metric"])
    assert found == ("one of 3 endings, by the task 'multiple-choice'", "accuracy")
    assert [verdict["gate"] for verdict in row["verdicts"]] == ["finite", "max-drop", "min-agreement"]


def with_choices(source: Path, choices: int | str) -> Path:
    """The model with inputs [batch, choices, seq], and its first class as their scores [batch, choices]."""
    model = onnx.load(source)
    graph = model.graph
    constants = {"rows": np.array([-1]), "zero": np.array([0]), "one": np.array([1])}
    graph.initializer.extend(numpy_helper.from_array(values, f"choices/{name}") for name, values in constants.items())
    before: list[onnx.NodeProto] = []
    for value in graph.input:
        for node in graph.node:
            node.input[:] = [f"{name}/rows" if name == value.name else name for name in node.input]
        before += [
            helper.make_node("Shape", [value.name], [f"{value.name}/seq"], start=2, end=3),
            helper.make_node("Concat", ["choices/rows", f"{value.name}/seq"], [f"{value.name}/flat"], axis=0),
            helper.make_node("Reshape", [value.name, f"{value.name}/flat"], [f"{value.name}/rows"]),
        ]
        value.CopyFrom(helper.make_tensor_value_info(value.name, TensorProto.INT64, ("batch", choices, "seq")))
    last = next(node for node in graph.node if "logits" in node.output)
    last.output[:] = ["classes"]
    scores = [
        helper.make_node("Slice", ["classes", "choices/zero", "choices/one", "choices/one"], ["first"]),
        helper.make_node("Shape", ["input_ids"], ["questions"], start=0, end=2),
        helper.make_node("Reshape", ["first", "questions"], ["logits"]),
    ]
    nodes = [*before, *graph.node, *scores]
    del graph.node[:], graph.output[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.output.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, ("batch", choices)))
    onnx.save(model, source)
    return source
