"""Good candidates pass and damaged ones fail, each with its verdict and exit code."""

import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from answering_models import WORDS, classifier, embedder, reading, texts
from click.testing import CliRunner, Result

from onnxslim_bert.cli.validate import validate as command
from onnxslim_bert.errors import (
    AccuracyGateError,
    DataError,
    LatencyGateError,
    ModelError,
    OutputError,
    SizeGateError,
    SlimError,
)
from onnxslim_bert.graph.files import model_bytes
from onnxslim_bert.proof.comparison import compare
from onnxslim_bert.proof.gates import Budgets, enforce
from onnxslim_bert.proof.intervals import Interval
from onnxslim_bert.proof.outputs import Outputs
from onnxslim_bert.proof.validate import validate
from onnxslim_bert.proof.validation import document
from onnxslim_bert.proof.verdicts import judge

# w0 to w2 mean class 0, w3 to w6 class 1.
TABLE = np.array([[0, 0], [3, 0], [2, 0], [1, 0], [0, 1.1], [0, 2.2], [0, 3.3], [0, 4.4]], np.float32)
ROWS = [f"w{first} w{second}" for first in range(WORDS) for second in range(WORDS)]
RIGHT = [int(sum(TABLE[int(word[1:]) + 1] @ [-1, 1] for word in row.split()) > 0) for row in ROWS]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """The model that answers every row right, its tokenizer beside it."""
    reading(tmp_path)
    return classifier(tmp_path / "base.onnx", TABLE)


def damaged(path: Path, noise: float) -> Path:
    """The base with noise on its weights."""
    return classifier(path, TABLE + np.random.default_rng(1).normal(scale=noise, size=TABLE.shape).astype(np.float32))


def test_a_model_equals_itself(base):
    """No drop, full agreement, no distance, no discordant row."""
    result = validate(base, base, texts(ROWS, RIGHT), reading(base.parent), Budgets(max_drop=10, min_agreement=90))
    seen = result.comparison
    assert (seen.scores[0].metric, seen.scores[0].base.value, seen.scores[0].drop.value) == ("accuracy", 100, 0)
    assert seen.fidelity.agreement
    assert seen.fidelity.agreement.value == 100
    assert (seen.fidelity.max_difference, seen.fidelity.kl) == (0, 0)
    assert seen.mcnemar
    assert (seen.mcnemar.only_base, seen.mcnemar.p) == (0, 1)
    assert [verdict.outcome for verdict in result.verdicts] == ["met", "met", "met"]
    assert result.base_bytes == base.stat().st_size


def test_a_damaged_candidate_misses_accuracy_and_agreement(base):
    """Noise as large as the weights."""
    worse = damaged(base.parent / "worse.onnx", 4)
    result = validate(base, worse, texts(ROWS, RIGHT), reading(base.parent), Budgets(max_drop=1, min_agreement=99))
    assert [verdict.outcome for verdict in result.verdicts] == ["met", "missed", "missed"]
    with pytest.raises(AccuracyGateError, match="max-drop missed"):
        enforce(result.verdicts)


def test_a_candidate_with_its_classes_swapped_scores_nothing(base):
    """A permutation of the labels is damage: it is not guessed away."""
    swapped = classifier(base.parent / "swapped.onnx", TABLE[:, ::-1].copy())
    result = validate(base, swapped, texts(ROWS, RIGHT), reading(base.parent))
    assert result.comparison.scores[0].candidate.value == pytest.approx(0)


def test_few_rows_cannot_carry_a_tight_budget(base):
    """49 equal answers may hide a drop of 6 points: inconclusive, which fails under strict."""
    result = validate(base, base, texts(ROWS, RIGHT), reading(base.parent), Budgets(max_drop=1))
    assert result.verdicts[1].outcome == "inconclusive"
    enforce(result.verdicts)
    with pytest.raises(AccuracyGateError, match="the data cannot carry this budget"):
        enforce(result.verdicts, strict=True)


def test_nan_in_the_candidate_fails_without_any_budget(base):
    """The broken rows count as wrong, and the report stays valid JSON."""
    table = TABLE.copy()
    table[1] = np.nan
    broken = classifier(base.parent / "broken.onnx", table)
    result = validate(base, broken, texts(ROWS, RIGHT), reading(base.parent))
    assert result.comparison.broken == 13  # rows with w0
    assert result.comparison.scores[0].candidate.value == pytest.approx(100 * 36 / 49)
    json.dumps(result.to_json(), allow_nan=False)
    with pytest.raises(AccuracyGateError, match="finite missed: NaN or infinite outputs on 13 of 49 rows"):
        enforce(result.verdicts)


def test_nan_in_the_base_leaves_nothing_to_compare_with(base):
    """It is the base that is refused."""
    broken = classifier(base.parent / "broken.onnx", TABLE * np.nan)
    with pytest.raises(ModelError, match=r"broken\.onnx: logits is NaN or infinite on row 1"):
        validate(broken, base, texts(ROWS, RIGHT), reading(base.parent))


def test_a_file_over_its_budget_misses_size(base):
    """In bytes of the file."""
    result = validate(base, base, texts(ROWS, RIGHT), reading(base.parent), Budgets(max_size=100))
    with pytest.raises(SizeGateError, match="max-size missed"):
        enforce(result.verdicts)


def test_a_speedup_is_measured_only_when_asked_for(base):
    """No model is a million times faster than itself."""
    data, reader = texts(ROWS, RIGHT), reading(base.parent)
    assert validate(base, base, data, reader).bench is None
    result = validate(base, base, data, reader, Budgets(min_speedup=1e6))
    assert result.bench
    assert result.bench.rounds == 100
    with pytest.raises(LatencyGateError, match="min-speedup missed"):
        enforce(result.verdicts)


def test_a_speedup_within_its_interval_is_inconclusive(base):
    """Judged from the interval alone."""
    seen = validate(base, base, texts(ROWS, RIGHT), reading(base.parent)).comparison
    verdicts = judge(seen, Budgets(min_speedup=1.5), speedup=Interval(1.6, 1.4, 1.8))
    assert [(verdict.gate, verdict.outcome) for verdict in verdicts] == [
        ("finite", "met"),
        ("min-speedup", "inconclusive"),
    ]


def test_labels_outside_the_classes_are_refused(base):
    """With the row, counted from 1."""
    with pytest.raises(DataError, match="label 2 on row 3 of 'rows': needed one of the model's classes 0 to 1"):
        validate(base, base, texts(["w0", "w1", "w2"], [0, 1, 2]), reading(base.parent))


def test_models_that_answer_different_things_are_refused(base):
    """Three classes against two, and an embedding against classes."""
    three = classifier(base.parent / "three.onnx", np.eye(WORDS + 1, 3))
    for other in (three, embedder(base.parent / "embedding.onnx", TABLE)):
        with pytest.raises(ModelError, match=r"nothing to compare: .* 2 classes"):
            validate(base, other, texts(ROWS), reading(base.parent))


def test_models_that_read_different_inputs_are_refused(base):
    """The one that the base does not take is named."""
    other = classifier(base.parent / "other.onnx", TABLE, mask_name="input_mask")
    with pytest.raises(ModelError, match=r"other\.onnx takes input_mask of rank 2, which .*base\.onnx does not"):
        validate(base, other, texts(ROWS), reading(base.parent))


def test_a_file_that_is_no_model_is_refused(base):
    """Random bytes."""
    (base.parent / "bytes.onnx").write_bytes(bytes(range(256)) * 9)
    with pytest.raises(ModelError):
        validate(base, base.parent / "bytes.onnx", texts(ROWS), reading(base.parent))


def test_a_regression_head_is_judged_by_correlation(base):
    """Its labels are scores; there is no argmax to agree on."""
    score = classifier(base.parent / "score.onnx", TABLE[:, :1] - TABLE[:, 1:])
    worse = classifier(base.parent / "worse.onnx", np.random.default_rng(2).normal(size=(WORDS + 1, 1)))
    reader = reading(base.parent)
    labels = [sum(float(TABLE[int(word[1:]) + 1] @ [1, -1]) for word in row.split()) for row in ROWS]
    data = texts(ROWS, labels, "pearson-spearman")
    result = validate(score, worse, data, reader, Budgets(max_drop=1))
    assert [s.metric for s in result.comparison.scores] == ["pearson-spearman", "pearson", "spearman", "mse"]
    assert result.comparison.scores[0].base.value == pytest.approx(100)
    assert (result.comparison.mcnemar, result.comparison.fidelity.agreement) == (None, None)
    assert result.verdicts[1].outcome == "missed"
    with pytest.raises(DataError, match="logits has no argmax"):
        validate(score, score, data, reader, Budgets(min_agreement=99))
    with pytest.raises(DataError, match="'rows' holds scores, which need a model with one output"):
        validate(base, base, data, reader)


def test_an_embedding_is_compared_without_labels(base):
    """Labels do not apply to it."""
    model = embedder(base.parent / "embedding.onnx", TABLE)
    result = validate(model, model, texts(ROWS, RIGHT), reading(base.parent))
    assert result.comparison.scores == ()
    assert result.comparison.fidelity.cosine == pytest.approx(1)
    with pytest.raises(DataError, match="last_hidden_state is an embedding"):
        validate(model, model, texts(ROWS, RIGHT), reading(base.parent), Budgets(max_drop=1))


def test_a_drop_needs_labels(base):
    """Refused before any model runs."""
    with pytest.raises(DataError, match="a budget for the drop needs labels"):
        validate(base, base, texts(ROWS), reading(base.parent), Budgets(max_drop=1))


@pytest.mark.parametrize(("metric", "names"), [("f1", ["f1", "accuracy"]), ("matthews", ["matthews", "accuracy"])])
def test_the_data_set_chooses_its_metric(base, metric, names):
    """The metric that judges comes first."""
    outputs = Outputs(base, "logits", "classes", np.array([[2.0, 1], [1, 2], [0, 1]], np.float32))
    scores = compare(outputs, outputs, texts(["a", "b", "c"], [0, 1, 1], metric)).scores
    assert [score.metric for score in scores] == names
    assert scores[0].candidate.value == pytest.approx(100)


def test_external_data_counts_as_size(tmp_path):
    """And is missed when it is gone."""
    import onnx

    model = classifier(tmp_path / "m.onnx", TABLE)
    apart = tmp_path / "apart.onnx"
    onnx.save(onnx.load(model), apart, save_as_external_data=True, location="apart.data", size_threshold=0)
    assert model_bytes(apart) == apart.stat().st_size + (tmp_path / "apart.data").stat().st_size
    (tmp_path / "apart.data").unlink()
    with pytest.raises(ModelError, match=r"apart\.data"):
        model_bytes(apart)


def invoke(base: Path, candidate: Path, *options: str) -> Result:
    """The command on the labelled rows."""
    data = base.parent / "rows.tsv"
    data.write_text("sentence\tlabel\n" + "".join(f"{row}\t{label}\n" for row, label in zip(ROWS, RIGHT, strict=True)))
    return CliRunner().invoke(command, [str(base), str(candidate), "--data", str(data), *options])


def test_the_command_prints_a_table_and_verdicts(base):
    """On stdout, for people."""
    result = invoke(base, base, "--max-drop", "10")
    assert result.exit_code == 0, result.output
    assert "accuracy" in result.stdout
    assert "100.00 (92.7 to 100.0)" in result.stdout
    assert "max-drop met: 0 points (0 to 6.122), wanted at most 10 points" in result.stdout
    assert "McNemar: only base right 0" in result.stdout


def test_json_is_the_only_thing_on_stdout(base):
    """One document, also when a gate fails."""
    result = invoke(base, damaged(base.parent / "worse.onnx", 4), "--json", "--max-drop", "1")
    document = json.loads(result.stdout)
    assert document["verdicts"][1]["outcome"] == "missed"
    assert document["comparison"]["rows"] == 49
    assert isinstance(result.exception, AccuracyGateError)


@pytest.mark.parametrize("several", [1, 2])
def test_a_number_that_is_not_finite_is_null(base, several):
    """JSON has no other word for it."""
    found = validate(base, base, texts(ROWS, RIGHT), reading(base.parent))
    fidelity = replace(found.comparison.fidelity, max_difference=np.inf)
    result = document([replace(found, comparison=replace(found.comparison, fidelity=fidelity))] * several)
    json.dumps(result, allow_nan=False)
    for one in result.get("validations", [result]):
        assert one["comparison"]["fidelity"]["max_difference"] is None


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--max-drop", "1", "--strict"], AccuracyGateError),
        (["--max-size", "1KB"], None),
        (["--max-size", "100B"], SizeGateError),
        (["--max-size", "large"], DataError),
        (["--min-speedup", "1e6"], LatencyGateError),
    ],
)
def test_budgets_become_errors(base, options, error):
    """Each with the exit code of its class."""
    raised = invoke(base, base, *options).exception
    assert type(raised) is error if error else raised is None
    assert error is None or issubclass(error, SlimError)


def test_junit_is_written_and_kept_unless_forced(base):
    """Also when a gate fails."""
    report = base.parent / "gates.xml"
    worse = damaged(base.parent / "worse.onnx", 4)
    assert isinstance(invoke(base, worse, "--max-drop", "1", "--junit", str(report)).exception, AccuracyGateError)
    assert ET.parse(report).getroot().get("failures") == "1"
    assert isinstance(invoke(base, base, "--junit", str(report)).exception, OutputError)
    assert invoke(base, base, "--junit", str(report), "--force").exit_code == 0
    assert ET.parse(report).getroot().get("failures") == "0"


def test_rows_are_sampled_by_seed(base):
    """The same seed, the same rows."""
    prints = [
        json.loads(invoke(base, base, "--json", "--rows", "9", "--seed", seed).stdout)["comparison"]["fingerprint"]
        for seed in ("1", "1", "2")
    ]
    assert prints[0] == prints[1] != prints[2]
