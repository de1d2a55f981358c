"""What `onnxslim explain` says, against reviewed texts."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from graphs import fixture, prepared

from onnxslim_bert.cli.explain import explain as command
from onnxslim_bert.cli.options import TARGETS as NAMES
from onnxslim_bert.errors import ProviderError
from onnxslim_bert.passes.fix_shapes import FixShapes
from onnxslim_bert.targets.explain import describe, explain
from onnxslim_bert.targets.table import TARGETS

GOLDEN = Path(__file__).parent / "prediction" / "golden"
EXPLAINED = (
    ("bert-ts17-sdpa", "coreml", 7),
    ("bert-ts17-sdpa", "nnapi", 7),
    ("distilbert-dynamo20-sdpa", "nnapi", None),
    ("fused-attention", "coreml", 7),
    ("quantized-qdq", "nnapi", 7),
)


def golden(name: str, target: str, seq: int | None) -> Path:
    return GOLDEN / f"{name}-{target}-{seq or 'open'}.txt"


@pytest.mark.parametrize(("name", "target", "seq"), EXPLAINED)
def test_the_text_is_the_reviewed_one(name, target, seq, request):
    """`pytest --regen` writes it anew."""
    path, text = golden(name, target, seq), describe(explain(fixture(name), target, seq=seq)) + "\n"
    if request.config.getoption("--regen"):
        path.write_text(text)
    assert text == path.read_text()


def test_every_golden_text_is_tested():
    assert set(GOLDEN.glob("*.txt")) == {golden(*case) for case in EXPLAINED}


def test_every_node_left_is_named_with_its_reason():
    document = explain(fixture("bert-ts17-sdpa"), "nnapi", seq=7).to_json()
    assert document["predicted"]
    assert document["shape"] == (1, 7)
    assert sum(group["count"] for group in document["left"]) == document["total"] - document["taken"]
    assert all(
        len(set(group["nodes"])) == group["count"] == sum(group["operators"].values()) for group in document["left"]
    )
    assert any("deprecated" in note for note in document["notes"])


def test_what_runs_here_is_seen():
    """The CPU provider takes everything, and nothing is to be said of open shapes."""
    explanation = explain(fixture("bert-ts17-sdpa"), "cpu")
    assert explanation.placement.whole
    assert not explanation.placement.predicted
    assert not explanation.notes
    assert describe(explanation).endswith("nodes (100.0 %) in 1 partition; seen")


def test_qnn_says_itself_why_it_leaves_a_node():
    pytest.importorskip("onnxruntime_qnn")
    explanation = explain(fixture("bert-dynamo18-eager"), "qnn", seq=7)
    (group,) = explanation.placement.groups
    assert not explanation.placement.predicted
    assert group.operators == {"GatherND": 1}
    assert "GatherND" in group.reason
    assert group.fix == "mask-bias"


def test_fixed_shapes_are_kept(tmp_path):
    """`seq` asks about open dimensions only."""
    prepared("bert-ts17-sdpa", FixShapes(batch=1, seq=5)).save(tmp_path / "fixed.onnx")
    explanation = explain(tmp_path / "fixed.onnx", "coreml", seq=7)
    assert explanation.shape is None
    assert not explanation.notes


def test_unknown_targets_name_the_nearest():
    with pytest.raises(ProviderError, match="no target 'nnap': did you mean 'nnapi'"):
        explain(fixture("bert-ts17-sdpa"), "nnap")


# the command


def test_the_command_knows_every_target():
    assert set(NAMES) == set(TARGETS)


def test_the_command_prints_one_document():
    run = CliRunner().invoke(command, [str(fixture("bert-ts17-sdpa")), "--target", "coreml", "--seq", "7", "--json"])
    assert run.exit_code == 0
    assert json.loads(run.output)["target"] == "coreml"


def test_the_command_refuses_a_batch_that_does_nothing():
    run = CliRunner().invoke(command, [str(fixture("bert-ts17-sdpa")), "--target", "coreml", "--batch", "2"])
    assert run.exit_code == 2
    assert "--batch does nothing without --seq" in run.output
