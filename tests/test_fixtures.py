"""The committed fixtures are complete, answer as their source models do, and say nothing of the machine."""

from pathlib import Path

import numpy as np
import pytest

from onnxslim_bert.graph.sessions import open_session

FIXTURES = Path(__file__).parent / "fixtures"
FAMILIES = ("bert", "roberta", "distilbert", "albert", "electra", "prenorm")
# TorchScript cannot write SDPA before opset 14.
EXPORTS = (
    *("ts13-eager", "ts14-sdpa", "ts17-eager", "ts17-sdpa"),
    *("dynamo18-eager", "dynamo18-sdpa", "dynamo20-eager", "dynamo20-sdpa"),
)
OTHERS = {
    *("bert-dynamo23-sdpa", "bert-features", "bert-features-pooled", "bert-mlm", "bert-mlm-tied", "bert-nomask"),
    *("fused-attention", "fused-mha", "quantized-dynamic", "quantized-qdq"),
    *("decoder-ts17", "decoder-dynamo18", "mlp", "cnn"),
}


def difference(name: str, family: str) -> float:
    """The largest difference of a fixture's logits from those that torch gave."""
    reference = np.load(FIXTURES / f"{family}.npz")
    session = open_session(FIXTURES / f"{name}.onnx")
    (logits,) = session.run(["logits"], {node.name: reference[node.name] for node in session.get_inputs()})
    return float(np.abs(logits - reference["logits"]).max())


def test_every_fixture_exists_and_no_other():
    """6 families from 4 exports with 2 attentions, a reference for each, and the others."""
    models = {f"{family}-{export}" for family in FAMILIES for export in EXPORTS}
    assert len(models) == 48
    assert {path.stem for path in FIXTURES.glob("*.onnx")} == models | OTHERS
    assert {path.stem for path in FIXTURES.glob("*.npz")} == set(FAMILIES)


@pytest.mark.parametrize("export", EXPORTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_an_export_answers_as_torch_does(family, export):
    """On a padded batch, to 1e-4."""
    assert difference(f"{family}-{export}", family) < 1e-4


@pytest.mark.parametrize("name", ["bert-dynamo23-sdpa", "fused-attention", "fused-mha"])
def test_another_form_of_bert_answers_as_torch_does(name):
    """The Attention operator and onnxruntime's fusions change nothing."""
    assert difference(name, "bert") < 1e-4


@pytest.mark.parametrize("name", ["quantized-dynamic", "quantized-qdq"])
def test_a_quantized_bert_differs_a_little(name):
    """Int8 is close, and not the same."""
    assert 1e-4 < difference(name, "bert") < 0.5


def test_the_reference_tells_the_batches_rows_apart():
    """Padding is there, and no two rows or references answer alike: a stale file would show."""
    answers = [np.load(FIXTURES / f"{family}.npz") for family in FAMILIES]
    assert all(answer["attention_mask"].min(axis=1).tolist() == [0, 0, 1] for answer in answers)
    assert all(answer["logits"].std(axis=0).min() > 1e-2 for answer in answers)
    assert len({answer["logits"].tobytes() for answer in answers}) == len(FAMILIES)


def test_fixtures_are_small():
    """All of them stay under 4 MB."""
    assert sum(path.stat().st_size for path in FIXTURES.iterdir()) < 4_000_000


@pytest.mark.parametrize(
    "trace", [b"/home/", b"/root/", b"/tmp/", b"/Users/", b"site-packages", b".py", b"stack_trace"]
)
def test_no_fixture_holds_a_path_of_the_machine(trace):
    """Exporters note source files in metadata and doc strings; the fixtures carry none."""
    assert [path.name for path in FIXTURES.iterdir() if trace in path.read_bytes()] == []
