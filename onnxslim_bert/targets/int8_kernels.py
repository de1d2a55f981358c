"""Measure how fast and how right the CPU provider's int8 products are here: by running them, not by the CPU's name."""

import time
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from onnxslim_bert.arrays import Array
from onnxslim_bert.graph.sessions import load, session_options

ROWS, INNER, COLUMNS = 128, 768, 768
REPEATS = 5
PAIRINGS = {"u8 x s8": (np.uint8, np.int8), "u8 x u8": (np.uint8, np.uint8), "s8 x s8": (np.int8, np.int8)}


@dataclass(frozen=True)
class Int8Kernels:
    """What was measured of the int8 products of this CPU.

    gops: 10^9 multiplications and additions a second (GOPS) on one thread, for float32 and every pairing of
    activations and weights; [128, 768] x [768, 768], best of 5.
    saturates: whether u8 x s8 products come out wrong, because sums of two of them are cut to 16 bits.
    """

    gops: dict[str, float]
    saturates: bool


def int8_kernels() -> Int8Kernels:
    """Measure this CPU's int8 products: about a tenth of a second, or seconds where a pairing has no fast kernel."""
    gops = {"float32": _gops(np.float32, np.float32)}
    gops |= {name: _gops(activations, weights) for name, (activations, weights) in PAIRINGS.items()}
    return Int8Kernels(gops, u8s8_saturates())


@cache
def u8s8_saturates() -> bool:
    """Whether sums of the largest products come out wrong here: two of them do not fit 16 bits."""
    activations, weights = np.full((4, 64), 255, np.uint8), np.full((64, 64), 127, np.int8)
    (product,) = _session(activations.dtype, weights).run(None, {"x": activations})
    return bool((np.asarray(product) != 64 * 255 * 127).any())


def _gops(activations: type, weights: type) -> float:
    return 2 * ROWS * INNER * COLUMNS / _seconds(activations, weights, (ROWS, INNER, COLUMNS)) / 1e9


def _seconds(activations: type, weights: type, shape: tuple[int, int, int]) -> float:
    """Processor time of the shortest of some runs of x @ weights on one thread; shape: rows, inner and columns.

    The thread's own time: under a limit on processor time (`ulimit -t`) Linux counts a process's in steps of 4 ms.
    """
    rng, (rows, inner, columns) = np.random.default_rng(0), shape
    feed: dict[str, Array] = {"x": rng.integers(0, 100, (rows, inner)).astype(activations)}
    session = _session(np.dtype(activations), rng.integers(0, 100, (inner, columns)).astype(weights))
    session.run(None, feed)
    times = []
    for _ in range(REPEATS):
        start = time.thread_time()
        session.run(None, feed)
        times.append(time.thread_time() - start)
    return min(times)


def _session(activations: np.dtype[Any], weights: Array) -> ort.InferenceSession:
    """y = x @ weights, in int32 for integers."""
    whole = weights.dtype.kind in "iu"
    kind = helper.np_dtype_to_tensor_dtype(activations)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger" if whole else "MatMul", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", kind, ["rows", weights.shape[0]])],
        [helper.make_tensor_value_info("y", TensorProto.INT32 if whole else kind, ["rows", weights.shape[1]])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return load(model.SerializeToString(), session_options())
