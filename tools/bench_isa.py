"""What a matrix product costs on this CPU in each type, and whether what the cpu target writes is the fastest.

    python tools/bench_isa.py --rows 128 --inner 384 --columns 1536

One thread, through ONNX Runtime's CPU provider, every type once a round in shuffled order. GOPS count a multiplication
and an addition as two. `u8 x s8, x64quantprecision` is the same product with the session option of that name.
"""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from onnxslim_bert.graph.sessions import CPU, session_options
from onnxslim_bert.machine import host, instruction_sets, int8_advice
from onnxslim_bert.proof.bench import interleave
from onnxslim_bert.proof.intervals import Interval, paired_ratio
from onnxslim_bert.targets.int8_kernels import u8s8_saturates

WRITTEN = "u8 x s8"  # by quantize-static and quantize-dynamic
PRECISE = {"session.x64quantprecision": "1"}


@dataclass(frozen=True)
class Rate:
    """gops: median over the rounds. speedup: over float32, within rounds. exact: the product was the exact one."""

    types: str
    gops: float
    speedup: Interval
    exact: bool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--inner", type=int, default=768)
    parser.add_argument("--columns", type=int, default=768)
    parser.add_argument("--rounds", type=int, default=50)
    options = parser.parse_args()
    rates = measure(options.rows, options.inner, options.columns, options.rounds)
    print(f"{host().cpu}: {', '.join(instruction_sets()) or 'instruction sets unknown'}\n")
    print(f"[{options.rows}, {options.inner}] x [{options.inner}, {options.columns}]\n")
    print("| activations x weights | GOPS | against float32 | exact |\n| --- | --: | --: | --- |")
    for rate in rates:
        spread = f"{rate.speedup.value:.2f}x ({rate.speedup.low:.2f} to {rate.speedup.high:.2f})"
        print(f"| {rate.types} | {rate.gops:.0f} | {spread} | {'yes' if rate.exact else 'NO, it saturates'} |")
    print("\n" + verdict(rates, int8_advice(instruction_sets()).saturates or u8s8_saturates()))


def verdict(rates: list[Rate], saturates: bool) -> str:
    """Which types the cpu target writes here, and whether a faster one was measured."""
    fastest = max(rates, key=lambda rate: rate.speedup.value)
    chosen = f"the cpu target writes {WRITTEN}{' with reduce_range, which does not saturate' if saturates else ''}"
    agrees = "the fastest measured" if fastest.types == WRITTEN else f"but {fastest.types} was measured fastest"
    return f"{chosen}: {agrees}"


def measure(rows: int, inner: int, columns: int, rounds: int) -> list[Rate]:
    """The rate of each type; float32 comes first."""
    rng = np.random.default_rng(0)
    cases: dict[str, tuple[type, type, Mapping[str, str]]] = {
        "float32": (np.float32, np.float32, {}),
        "float16": (np.float16, np.float16, {}),
        WRITTEN: (np.uint8, np.int8, {}),
        f"{WRITTEN}, x64quantprecision": (np.uint8, np.int8, PRECISE),
        "u8 x u8": (np.uint8, np.uint8, {}),
        "s8 x s8": (np.int8, np.int8, {}),
    }
    sessions, feeds, exact = [], [], []
    for activations, weights, config in cases.values():
        x, w = (
            _values(rng, kind, shape) for kind, shape in ((activations, (rows, inner)), (weights, (inner, columns)))
        )
        session = _session(x, w, config)
        product = np.asarray(session.run(None, {"x": x})[0])
        integers = x.dtype.kind in "iu"
        exact.append(not integers or np.array_equal(product, x.astype(np.float64) @ w.astype(np.float64)))
        sessions.append(session)
        feeds.append([{"x": x}])
    times = interleave(sessions, feeds, rounds=rounds, warmup=5, seed=0)
    work = 2e-6 * rows * inner * columns
    return [
        Rate(types, work / float(np.median(times[:, i])), paired_ratio(times[:, 0], times[:, i], seed=0), exact[i])
        for i, types in enumerate(cases)
    ]


def _values(rng: np.random.Generator, kind: type, shape: tuple[int, int]) -> np.ndarray:
    """Of the type's whole range, floats of unit variance."""
    if kind in (np.uint8, np.int8):
        return rng.integers(np.iinfo(kind).min, np.iinfo(kind).max, shape, endpoint=True).astype(kind)
    return rng.standard_normal(shape).astype(kind)


def _session(x: np.ndarray, w: np.ndarray, config: Mapping[str, str]) -> ort.InferenceSession:
    integers = x.dtype.kind in "iu"
    kind = helper.np_dtype_to_tensor_dtype(x.dtype)
    result = TensorProto.INT32 if integers else kind
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger" if integers else "MatMul", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", kind, ["rows", w.shape[0]])],
        [helper.make_tensor_value_info("y", result, ["rows", w.shape[1]])],
        [numpy_helper.from_array(w, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = session_options()
    for key, value in config.items():
        options.add_session_config_entry(key, value)
    return ort.InferenceSession(model.SerializeToString(), options, providers=CPU)


if __name__ == "__main__":
    main()
