"""The documents of a bundle: manifest.json, what it holds and how to run it; results.json, what a device answered."""

from dataclasses import dataclass, field
from typing import ClassVar

MANIFEST, RESULTS, MODEL = "manifest.json", "results.json", "model.onnx"


@dataclass(frozen=True)
class RunSettings:
    """How a model is run.

    target: the provider, by the name that onnxruntime_perf_test takes. options: of the provider; a flag has an empty
    value. fallback: whether nodes may run on the CPU provider instead. threads: of the session, which do not spin.
    warmup, runs: untimed, then timed runs.
    """

    target: str
    options: dict[str, str] = field(default_factory=dict)
    fallback: bool = False
    threads: int = 1
    warmup: int = 5
    runs: int = 100


@dataclass(frozen=True)
class Manifest:
    """What a bundle holds.

    model: name of the file that became model.onnx. batch, length: of every test vector; length is None where texts have
    their own. dimensions: sizes of the open axes of model.onnx, by name, to be fixed before the provider sees it.
    base, base_sha256: the model that computed the expected outputs. data, rows, fingerprint: the rows it answered.
    inputs, outputs: names in the graph's order, which is that of input_i.pb and output_i.pb. vectors: number of
    test_data_set_k folders. files: sha256 of every other file of the bundle by its path in it, in hexadecimal.
    """

    SCHEMA: ClassVar[int] = 1

    schema: int
    onnxslim_bert: str
    model: str
    plan: RunSettings
    batch: int
    length: int | None
    dimensions: dict[str, int]
    base: str
    base_sha256: str
    data: str
    rows: int
    fingerprint: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    vectors: int
    files: dict[str, str]

    def input_files(self) -> list[str]:
        """Every input_i.pb, test set by test set."""
        return [vector_file(k, "input", i) for k in range(self.vectors) for i in range(len(self.inputs))]

    def output_files(self) -> list[str]:
        """Every output_i.pb, test set by test set."""
        return [vector_file(k, "output", i) for k in range(self.vectors) for i in range(len(self.outputs))]


@dataclass(frozen=True)
class Output:
    """One tensor that a device computed: the bytes of an ONNX TensorProto in base64, and their sha256."""

    sha256: str
    data: str


@dataclass(frozen=True)
class Results:
    """What a device answered.

    tool: the program that wrote this. bundle: sha256 of the manifest.json that was run, in hexadecimal; it stands for
    the whole bundle. device, runner: for people. latencies_ms: milliseconds of every timed run, in order.
    peak_bytes: most resident memory of the runner. outputs: by the path of the expected tensor in the bundle; all of
    them, or none from a runner that cannot write them.
    """

    SCHEMA: ClassVar[int] = 1

    schema: int
    tool: str
    bundle: str
    device: str
    runner: str
    latencies_ms: tuple[float, ...]
    peak_bytes: int | None = None
    outputs: dict[str, Output] | None = None


def vector_file(test_set: int, side: str, index: int) -> str:
    """Path in the bundle of one test vector; side: input or output."""
    return f"test_data_set_{test_set}/{side}_{index}.pb"
