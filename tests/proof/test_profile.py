"""Milliseconds by kind of operator: which is of which kind, and that nothing is counted twice or lost."""

from collections import Counter
from pathlib import Path

import pytest
from graphs import feeds, fixture, prepared

from onnxslim_bert.errors import ModelError
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.passes.quantize_static import QuantizeStatic
from onnxslim_bert.proof import profile as profile_module
from onnxslim_bert.proof.profile import CONTAINERS, KINDS, OPERATORS, PRODUCTS, by_kind, kind_of, profile
from onnxslim_bert.targets.table import CPU

F, I8, U8, I64 = "float", "int8", "uint8", "int64"


def node(operator: str, *inputs: tuple[str, list[int]], activations: int = 0) -> dict[str, object]:
    """As a profile describes it. activations: bytes of the inputs that are no constants."""
    shapes = [{dtype: shape} for dtype, shape in inputs]
    return {"op_name": operator, "input_type_shape": shapes, "activation_size": str(activations)}


X, W, SCORES = (F, [2, 7, 8]), (F, [8, 16]), (F, [2, 4, 7, 7])
XBYTES, SCORESBYTES = 2 * 7 * 8 * 4, 2 * 4 * 7 * 7 * 4


@pytest.mark.parametrize(
    ("kind", "described"),
    [
        ("dense float", node("MatMul", X, W, activations=XBYTES)),
        ("dense float", node("MatMul", X, activations=XBYTES)),  # its weight was packed and is gone
        ("attention", node("MatMul", SCORES, SCORES, activations=2 * SCORESBYTES)),
        ("attention", node("FusedMatMul", SCORES, SCORES, activations=2 * SCORESBYTES)),
        ("dense float", node("Gemm", (F, [7, 8]), (F, [16]), activations=7 * 8 * 4)),
        ("dense int8", node("MatMulIntegerToFloat", (U8, [2, 7, 8]), (F, []), (F, [16]), (U8, []), activations=112)),
        ("dense int8", node("MatMulIntegerToFloat", (U8, [2, 7, 8]), (I8, [8, 16]), (F, []), activations=112)),
        ("attention", node("QLinearMatMul", (U8, [2, 4, 7, 7]), (F, []), (U8, [2, 4, 7, 7]), activations=784)),
        ("dense int8", node("DynamicQuantizeMatMul", X, activations=XBYTES)),
        ("attention", node("MultiHeadAttention", X, X, X, activations=3 * XBYTES)),
        ("embedding", node("Gather", (F, [30, 8]), (I64, [2, 7]), activations=2 * 7 * 8)),
        ("layout", node("Gather", X, (I64, []), activations=XBYTES)),
        ("layout", node("Gather", (I64, [2]), (I64, []), activations=16)),
        ("quantize", node("QuantizeLinear", X)),
        ("softmax", node("Softmax", SCORES)),
        ("norm", node("SkipLayerNormalization", X, X)),
        ("activation", node("BiasGelu", X)),
        ("layout", node("Transpose", X)),
        ("other", node("Add", X, X)),
        ("other", node("Unheard-of", X)),
    ],
)
def test_kinds(kind, described):
    assert kind_of(described) == kind


def test_every_operator_is_of_one_kind():
    listed = [operator for operators in OPERATORS.values() for operator in operators]
    counts = Counter([*listed, *PRODUCTS, *CONTAINERS, "Gather"])
    assert {operator for operator, count in counts.items() if count > 1} == set()
    assert {*PRODUCTS.values()} < {*KINDS}


def events(*runs: list[tuple[str, int]]) -> list[dict[str, object]]:
    """A profile of runs of (operator, microseconds), a second apart."""
    found: list[dict[str, object]] = [{"cat": "Session", "name": "session_initialization", "ts": 0, "dur": 9}]
    for second, nodes in enumerate(runs, start=1):
        at = second * 1_000_000
        found.append({"cat": "Session", "name": "model_run", "ts": at, "dur": 999})
        for place, (operator, us) in enumerate(nodes):
            shared = {"cat": "Node", "args": node(operator), "ts": at + place}
            found += [shared | {"name": "n_kernel_time", "dur": us}, shared | {"name": "n_fence_before", "dur": 77}]
    return found


def test_times_are_those_of_the_last_runs():
    """In milliseconds; runs to warm up do not count, and a node that holds others does not either."""
    first, then = [("Softmax", 9000)], [("Softmax", 300), ("Add", 100), ("If", 5000), ("MultiHeadAttention", 600)]
    found = by_kind(events(first, then, then), runs=2)
    assert tuple(found) == KINDS
    nonzero = {kind: ms for kind, ms in found.items() if ms}
    assert nonzero == pytest.approx({"softmax": 0.3, "other": 0.1, "attention": 0.6})


def test_a_pause_moves_neither_sum_nor_shares():
    quiet, paused = [("Softmax", 300), ("Add", 100)], [("Softmax", 300), ("Add", 90_000)]
    assert by_kind(events(quiet, paused, quiet), runs=3) == pytest.approx(by_kind(events(quiet), runs=1))


def test_shares_sum_to_the_median_run():
    runs = [[("Softmax", a), ("Add", b)] for a, b in ((300, 100), (200, 300), (100, 500))]  # 400, 500, 600
    found = by_kind(events(*runs), runs=3)
    assert sum(found.values()) == pytest.approx(0.5)
    assert found["other"] / found["softmax"] == pytest.approx(300 / 200)


@pytest.fixture
def seen(monkeypatch):
    """The nodes of every profile that is read, by kind."""
    found: list[Counter[str]] = []
    real = profile_module.by_kind

    def watched(events, runs):
        found.append(Counter(kind_of(e["args"]) for e in events if e.get("cat") == "Node"))
        return real(events, runs)

    monkeypatch.setattr(profile_module, "by_kind", watched)
    return found


def test_a_float_model(seen, tmp_path, monkeypatch):
    """Each layer has two products of activations and six by weights, and nothing is int8; no file is left behind."""
    monkeypatch.chdir(tmp_path)
    path = fixture("bert-ts17-eager")
    model = Model.load(path)
    found = profile(path, CPU, feeds(model), runs=3)
    layers, runs = len(prepared(path, Canonicalize()).encoder.layers), 3 + profile_module.WARMUP
    assert seen[0]["attention"] == 2 * layers * runs
    assert seen[0]["dense float"] == (6 * layers + 2) * runs  # with pooler and classifier
    assert (seen[0]["embedding"], seen[0]["dense int8"]) == (3 * runs, 0)
    assert sum(found.values()) > 0
    assert found["dense int8"] == 0 < found["dense float"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("form", ["contrib", "qdq"])
def test_an_int8_model(seen, tmp_path, form):
    """Whichever way it is written."""
    model = prepared("bert-ts17-eager", Canonicalize(), Fuse(), QuantizeStatic(format=form))
    model.save(tmp_path / "int8.onnx")
    found = profile(tmp_path / "int8.onnx", CPU, feeds(model), runs=2)
    layers, runs = len(model.encoder.layers), 2 + profile_module.WARMUP
    assert seen[0]["dense int8"] == 6 * layers * runs
    assert min(found["dense int8"], found["quantize"]) > 0


def test_a_file_that_is_no_model(tmp_path: Path):
    (tmp_path / "m.onnx").write_bytes(b"no")
    with pytest.raises(ModelError, match="not a complete ONNX file"):
        profile(tmp_path / "m.onnx", CPU, {}, runs=1)
