"""A clock that counts weights: latencies follow from the file, so no test depends on how busy a machine is."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from onnxslim_bert.proof.bench import Entry
from onnxslim_bert.proof.intervals import Interval


@dataclass(frozen=True)
class FakeLatency:
    median_ms: float
    speedup: Interval


@dataclass(frozen=True)
class FakeBench:
    latencies: list[FakeLatency]


def fake_ms(path: Path) -> float:
    """Four for each thousand float weights of matrices, one for int8 ones, those behind a table's Gather aside."""
    graph = onnx.load(path).graph
    tables = {node.input[0] for node in graph.node if node.op_type == "Gather"}
    weights = [tensor for tensor in graph.initializer if len(tensor.dims) == 2 and tensor.name not in tables]
    return sum(
        tensor.dims[0] * tensor.dims[1] * (4 if tensor.data_type == onnx.TensorProto.FLOAT else 1) / 1000
        for tensor in weights
    )


def fake_bench(models: Sequence[Path | Entry], *_: object, **__: object) -> FakeBench:
    """What `bench` gives, by this clock."""
    times = [fake_ms(one[0] if isinstance(one, tuple) else one) for one in models]
    return FakeBench([FakeLatency(times[0], Interval(*[times[0] / ms] * 3)) for ms in times])
