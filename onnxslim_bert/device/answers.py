"""Judge the results of a device: check that they fit the bundle, compare the outputs, sum up the latencies."""

import base64
import binascii
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.device.bundle import Bundle
from onnxslim_bert.device.manifest import MODEL, Output, Results, vector_file
from onnxslim_bert.device.vectors import unpack
from onnxslim_bert.documents import read_document, read_whole
from onnxslim_bert.errors import DataError, ModelError
from onnxslim_bert.model.input_roles import roles_of
from onnxslim_bert.model.model_config import ModelConfig
from onnxslim_bert.model.role_names import InputRole, Roles, role_of
from onnxslim_bert.proof.collect import one_per_row
from onnxslim_bert.proof.fidelity import Fidelity, fidelity
from onnxslim_bert.proof.reading import read_model
from onnxslim_bert.proof.tasks.table import Kind


@dataclass(frozen=True)
class DeviceRun:
    """What one run of a bundle on a device showed: latencies, and how far its outputs are from the expected ones.

    median_ms, p90_ms, p99_ms: milliseconds of a run, as in `bench`. peak_bytes: most resident memory, None if unknown.
    output: name of the output that was compared, kind: what it is, fidelity: how close it is; None when the runner
    wrote no outputs. broken: rows that are NaN or infinite on the device. unproven: what these results do not show.
    """

    model: str
    target: str
    device: str
    runner: str
    batch: int
    length: int | None
    runs: int
    warmup: int
    threads: int
    median_ms: float
    p90_ms: float
    p99_ms: float
    peak_bytes: int | None
    rows: int
    base: str
    data: str
    output: str | None
    kind: Kind | None
    fidelity: Fidelity | None
    broken: int
    unproven: tuple[str, ...]


def read_results(path: Path, bundle: Bundle) -> Results:
    """The results at `path`. Raises DataError when they are corrupted, partial, or of another bundle."""
    if not path.is_file():
        raise DataError(f"no results at {path}: needed the results.json of a run")
    results = read_document(Results, read_whole(path), path)
    if results.bundle != bundle.sha256:
        raise DataError(
            f"{path} is of another bundle ({results.bundle[:12]}): needed one of {bundle.folder} ({bundle.sha256[:12]})"
        )
    runs, latencies = bundle.manifest.plan.runs, results.latencies_ms
    if len(latencies) != runs:
        raise DataError(f"{path} is partial: latencies of {len(latencies)} of {runs} runs")
    if min(latencies) <= 0:
        raise DataError(f"{path}: a run took {min(latencies)} ms: needed positive times")
    if results.outputs is not None:
        expected = bundle.manifest.output_files()
        missing = [name for name in expected if name not in results.outputs]
        if missing:
            raise DataError(f"{path} is partial: {len(missing)} of {len(expected)} outputs missing, {missing[0]} first")
        foreign = sorted(results.outputs.keys() - set(expected))
        if foreign:
            raise DataError(f"{path}: {foreign[0]!r} is no output of the bundle {bundle.folder}")
    return results


def compare(results: Results, bundle: Bundle, source: Path) -> DeviceRun:
    """Compare `results` with what the bundle expects. source: the file that they are from, for messages.

    Raises DataError when an output has another shape or type than the expected one.
    """
    manifest, plan = bundle.manifest, bundle.manifest.plan
    median, p90, p99 = np.percentile(results.latencies_ms, [50, 90, 99])
    unproven = [] if results.outputs else ["the outputs, since the runner wrote none"]
    if plan.fallback and plan.target != "cpu":
        unproven.append(f"how many nodes ran on {plan.target}, since fallback to the CPU was allowed")
    output, kind, close, broken = None, None, None, 0
    if results.outputs:
        found = {name: decode(item, f"{source}: {name}") for name, item in results.outputs.items()}
        output, kind, expected = pooled(bundle, bundle.tensor)
        for name, values in found.items():
            check_alike(values, bundle.tensor(name), f"{source}: {name}")
        _, _, answered = pooled(bundle, found.__getitem__)
        close = fidelity(kind, expected, answered)
        broken = len(answered) - close.rows
    return DeviceRun(
        model=manifest.model,
        target=plan.target,
        device=results.device,
        runner=results.runner,
        batch=manifest.batch,
        length=manifest.length,
        runs=plan.runs,
        warmup=plan.warmup,
        threads=plan.threads,
        median_ms=float(median),
        p90_ms=float(p90),
        p99_ms=float(p99),
        peak_bytes=results.peak_bytes,
        rows=manifest.rows,
        base=manifest.base,
        data=manifest.data,
        output=output,
        kind=kind,
        fidelity=close,
        broken=broken,
        unproven=tuple(unproven),
    )


def decode(output: Output, place: str) -> Array:
    """The values of an output, from its base64; no file is read. place: its name in messages. Raises DataError."""
    try:
        data = base64.b64decode(output.data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError(f"{place} is no base64 ({error}): needed the bytes of a tensor") from error
    if hashlib.sha256(data).hexdigest() != output.sha256:
        raise DataError(f"{place} was changed on its way: its sha256 is another")
    return unpack(data, place)


def check_alike(values: Array, expected: Array, place: str) -> None:
    """Raise DataError unless both have the same shape and the same kind of numbers (float, integer, bool)."""
    if (values.shape, values.dtype.kind) != (expected.shape, expected.dtype.kind):
        found, needed = (f"{array.dtype}{list(array.shape)}" for array in (values, expected))
        raise DataError(f"{place} is {found}: needed {needed}")


def pooled(bundle: Bundle, tensor: Callable[[str], Array]) -> tuple[str, Kind, Array]:
    """The output that is compared, of all test vectors: (name, kind, values [units, width]).

    A unit is a row; where the model answers every token, it is a token that is not padding. tensor: a function that
    gives an output by its path in the bundle, either the expected one or that of the device.
    """
    manifest, folder = bundle.manifest, bundle.folder
    first = {name: tensor(vector_file(0, "output", i)) for i, name in enumerate(manifest.outputs)}
    reading = read_model(folder / MODEL, real_tokens(bundle, 0), first, ModelConfig())
    name, kind = reading.outputs[0], reading.kind
    index = manifest.outputs.index(name)
    rows: list[Array] = []
    for k in range(manifest.vectors):
        output, mask = tensor(vector_file(k, "output", index)), real_tokens(bundle, k)
        is_each = kind in ("tokens", "spans")
        rows.append(output[mask].reshape(int(mask.sum()), -1) if is_each else one_per_row(folder, name, output, mask))
    values = np.concatenate(rows)
    return name, "score" if kind == "spans" or (kind == "classes" and values.shape[1] == 1) else kind, values


def real_tokens(bundle: Bundle, test_set: int) -> Array:
    """Which tokens of a test set are no padding, bool [batch, length]: by its mask, or all where it feeds none."""
    inputs = bundle.manifest.inputs
    roles = _roles(bundle.folder / MODEL, inputs)
    index = next((i for i, name in enumerate(inputs) if name in roles and roles[name].role == "mask"), None)
    values = bundle.tensor(vector_file(test_set, "input", index or 0))
    return np.ones(values.shape[:2], bool) if index is None else roles[inputs[index]].is_real(values)


def _roles(model: Path, names: Sequence[str]) -> Roles:
    """What each input takes (ids, mask, ...), from the graph or, where that does not tell, from the input's name."""
    try:
        return roles_of(model)
    except (DataError, ModelError):
        return {name: InputRole(role) for name in names if (role := role_of(name)) is not None}
