"""Where the milliseconds of one run go, by kind of operator, as ONNX Runtime itself sees it."""

import bisect
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from onnxslim_bert.graph.claims import scratch
from onnxslim_bert.graph.native_path import native_name
from onnxslim_bert.graph.sessions import load, run, session_options
from onnxslim_bert.proof.workload import Feeds
from onnxslim_bert.targets.setup import attach
from onnxslim_bert.targets.target import Target

WARMUP = 2  # runs before those that count

# Operators by kind, under the names that ONNX Runtime's own graph rewriting gives them, too. PRODUCTS and Gather are
# of two kinds each, as `kind_of` says.
OPERATORS: dict[str, tuple[str, ...]] = {
    "dense int8": ("DynamicQuantizeMatMul", "MatMulNBits"),
    "dense float": (),
    "attention": (
        *("Attention", "GroupQueryAttention", "MultiHeadAttention", "PackedAttention", "QAttention"),
        "RotaryEmbedding",
    ),
    "softmax": ("BiasSoftmax", "LogSoftmax", "QLinearSoftmax", "Softmax"),
    "norm": (
        *("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"),
        *("SkipLayerNormalization", "SkipSimplifiedLayerNormalization"),
    ),
    "activation": ("BiasGelu", "Erf", "FastGelu", "Gelu", "QuickGelu", "Relu", "Sigmoid", "Tanh"),
    "embedding": ("EmbedLayerNormalization", "GatherBlockQuantized", "QEmbedLayerNormalization"),
    "quantize": ("DequantizeLinear", "DynamicQuantizeLinear", "QuantizeLinear"),
    "layout": (
        *("Compress", "Concat", "Expand", "Flatten", "GatherElements", "GatherND", "Identity", "NonZero", "Pad"),
        *("Reshape", "ScatterND", "Shape", "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"),
    ),
    "other": (),
}
KINDS = tuple(OPERATORS)
PRODUCTS = {
    **dict.fromkeys(("Einsum", "FusedGemm", "FusedMatMul", "Gemm", "MatMul"), "dense float"),
    **dict.fromkeys(("MatMulInteger", "MatMulIntegerToFloat", "QGemm", "QLinearMatMul"), "dense int8"),
}
CONTAINERS = ("If", "Loop", "Scan")  # the nodes within are counted themselves
BYTES = {"float": 4, "float16": 2, "bfloat16": 2, "double": 8, "int8": 1, "uint8": 1, "int32": 4, "int64": 8}

_KIND = {operator: kind for kind, operators in OPERATORS.items() for operator in operators}


def profile(path: Path, target: Target, feeds: Feeds, runs: int, *, threads: int = 1) -> dict[str, float]:
    """Milliseconds of one run of the model at `path` by kind, a median over `runs`; every kind of KINDS is there.

    Raises ModelError when the model does not load or does not run on `feeds`, ProviderError when `target` cannot
    execute here.
    """
    options = session_options(threads)
    attach(options, target.setup({}, threads))
    with scratch() as folder:
        options.enable_profiling = True
        options.profile_file_prefix = native_name(folder / "profile")
        session = load(path, options, providers=None)
        for _ in range(WARMUP + runs):
            run(session, feeds)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return by_kind(events, runs)


def by_kind(events: Iterable[Mapping[str, Any]], runs: int) -> dict[str, float]:
    """Milliseconds of one run by kind, from the events of ONNX Runtime's profile; its last `runs` runs count.

    Each kind's time is its median over the runs, scaled so that the kinds add up to the median run. A run in which the
    host paused moves neither median.
    """
    held = list(events)
    starts = sorted(event["ts"] for event in held if event["name"] == "model_run")[-runs:]
    times = np.zeros((runs, len(KINDS)))
    for event in held:
        runs_a_kernel = event.get("cat") == "Node" and event["name"].endswith("_kernel_time")
        if runs_a_kernel and event["ts"] >= starts[0] and event["args"]["op_name"] not in CONTAINERS:
            turn = bisect.bisect_right(starts, event["ts"]) - 1
            times[turn, KINDS.index(kind_of(event["args"]))] += event["dur"] / 1000
    shares = np.median(times, axis=0)
    scale = np.median(times.sum(axis=1)) / (shares.sum() or 1.0)
    return dict(zip(KINDS, (shares * scale).tolist(), strict=True))


def kind_of(node: Mapping[str, Any]) -> str:
    """The kind of a node as a profile describes it.

    A product of activations alone belongs to attention; it is dense when it multiplies by a constant. Gather looks up
    rows of a constant table, or else arranges what there is.
    """
    operator = node["op_name"]
    if operator in PRODUCTS:
        return "attention" if _multiplies_activations(node) else PRODUCTS[operator]
    if operator == "Gather":
        return "layout" if _matrices_bytes(node) <= int(node["activation_size"]) else "embedding"
    return _KIND.get(operator, "other")


def _multiplies_activations(node: Mapping[str, Any]) -> bool:
    """Whether both matrices are activations; one that ONNX Runtime packed beforehand is no longer among the inputs."""
    both = sum(len(shape) > 1 for shape in _shapes(node)) > 1
    return both and _matrices_bytes(node) <= int(node["activation_size"])


def _matrices_bytes(node: Mapping[str, Any]) -> int:
    """What the inputs with more than one dimension take."""
    return sum(
        BYTES.get(dtype, 1) * int(np.prod(shape))
        for tensor in node["input_type_shape"]
        for dtype, shape in tensor.items()
        if len(shape) > 1
    )


def _shapes(node: Mapping[str, Any]) -> list[list[int]]:
    return [shape for tensor in node["input_type_shape"] for shape in tensor.values()]
