"""What works on this machine: packages, providers by a run of each, and the CPU's int8."""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxslim_bert import __version__
from onnxslim_bert.arrays import Array
from onnxslim_bert.errors import ProviderError, SlimError
from onnxslim_bert.graph.claims import scratch
from onnxslim_bert.machine import Host, Int8Advice, host, instruction_sets, int8_advice
from onnxslim_bert.targets.int8_kernels import Int8Kernels, int8_kernels
from onnxslim_bert.targets.session import open_on
from onnxslim_bert.targets.table import PLACES
from onnxslim_bert.targets.target import Target

# Packages that decide what works, with what each is for.
PACKAGES = {
    "onnx": "",
    "onnxruntime": "",
    "onnx-graphsurgeon": "",
    "numpy": "",
    "tokenizers": "",
    "onnxruntime-qnn": "[qnn]",
    "onnxruntime-ep-openvino": "[openvino]",
    "torch": "[export]",
}
# Packages that put files where this one or onnxruntime has its own.
CLASHES = {
    "onnxslim": "its script `onnxslim` overwrites this one's: run `onnxslim-bert`",
    "onnxruntime-openvino": "it overwrites onnxruntime: reinstall that and use the extra [openvino]",
    "onnxruntime-gpu": "it overwrites onnxruntime: install one of the two",
}
TOLERANCE = 0.02  # of results about 1, computed in bfloat16 by some
AMX_RATE = 6.0  # times float32: u8 x s8 products by AMX reached 9 to 10 (Emerald Rapids), by VNNI on the same CPU 3.8


@dataclass(frozen=True)
class Check:
    """One target's self-test. works: it opened a tiny model, took all of it and computed it right.

    note: what it computes in and where, or why it does not work. seconds: that the test took.
    """

    target: str
    provider: str
    works: bool
    note: str
    seconds: float


@dataclass(frozen=True)
class Checkup:
    """What `onnxslim doctor` found. packages: version by name, None if not installed. problems: what is to mend."""

    packages: dict[str, str | None]
    host: Host
    instruction_sets: tuple[str, ...]
    int8: Int8Advice
    kernels: Int8Kernels
    checks: tuple[Check, ...]
    problems: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """One JSON-ready document."""
        return {"onnxslim_bert": __version__, **asdict(self)}


def examine() -> Checkup:
    """Look and try everything; a few seconds."""
    sets = instruction_sets()
    advice, kernels = int8_advice(sets), int8_kernels()
    checks = tuple(self_test(target) for target in PLACES.values())
    packages = {name: installed(name) for name in PACKAGES}
    problems = (*_problems(advice, kernels, checks), *idle_amx(sets, kernels))
    return Checkup(packages, host(), sets, advice, kernels, checks, problems)


def idle_amx(sets: tuple[str, ...], kernels: Int8Kernels) -> Iterator[str]:
    """What to do where the CPU has AMX and u8 x s8 products run as if it had not.

    onnxruntime 1.32 tries out when it is imported whether AMX's registers survive a move to another CPU, and leaves AMX
    alone where the process may run on one CPU only.
    """
    ratio = kernels.gops["u8 x s8"] / kernels.gops["float32"]
    if "AMX-INT8" in sets and ratio < AMX_RATE:
        yield (
            f"this CPU has AMX and onnxruntime does not use it (u8 x s8 runs at {ratio:.1f} times float32): a process "
            "that may run on one CPU only when it imports onnxruntime goes without; start it on two and pin it later"
        )


def self_test(target: Target) -> Check:
    """Run a dense layer and a Softmax on the target and compare with numpy."""
    start = time.perf_counter()
    try:
        note, works = _run_on(target), True
    except SlimError as error:
        note, works = str(error), False
    return Check(target.name, target.provider, works, note, round(time.perf_counter() - start, 3))


def installed(package: str) -> str | None:
    """The version of an installed distribution."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _run_on(target: Target) -> str:
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(2, 3, 8)).astype(np.float32), rng.normal(size=(8, 5)).astype(np.float32)
    powers = np.exp(x @ w)
    wanted = powers / powers.sum(axis=-1, keepdims=True)
    with scratch() as folder:
        path = folder / "self-test.onnx"
        onnx.save(_tiny(x, w), path)
        placed = open_on(target, path)
        (found,) = placed.session.run(None, {"x": x})
    error = float(np.abs(np.asarray(found) - wanted).max())
    if not error <= TOLERANCE:
        raise ProviderError(
            f"{target.name} computes a tiny model wrong: off by {error:.2g}, wanted {TOLERANCE} at most"
        )
    shapes = ", fixed shapes only" if target.fixed_shapes else ""
    return f"{', '.join(target.precisions)}{shapes}; {target.home}"


def _tiny(x: Array, w: Array) -> onnx.ModelProto:
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["scores"], name="dense"),
            helper.make_node("Softmax", ["scores"], ["y"], name="softmax", axis=-1),
        ],
        "self-test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (*x.shape[:2], w.shape[1]))],
        [numpy_helper.from_array(w, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _problems(advice: Int8Advice, kernels: Int8Kernels, checks: tuple[Check, ...]) -> Iterator[str]:
    for name, harm in CLASHES.items():
        if version := installed(name):
            yield f"{name} {version} is installed: {harm}"
    if kernels.saturates:
        yield "u8 x s8 products saturate on this CPU: quantize with reduce_range, or set session.x64quantprecision=1"
    if checks[0].works and kernels.saturates != advice.saturates:
        told = "saturates" if advice.saturates else "does not saturate"
        yield f"the instruction sets say that u8 x s8 {told}, the run says otherwise: trust the run"
    for check in checks:
        target = PLACES[check.target]
        if not check.works and target.extra and "not installed" not in check.note:
            yield f"{check.target} is installed and does not work: {check.note}"
