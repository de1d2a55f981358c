"""What each pass would do with a model, found by trying it where that is cheap."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from onnxslim_bert.errors import DataError, SlimError
from onnxslim_bert.model.dense import dense_layers
from onnxslim_bert.model.halves import has_halves
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes import FORMS, PASSES
from onnxslim_bert.passes.float16 import check_is_float
from onnxslim_bert.rewriting.contract import Change, Context, Pass
from onnxslim_bert.rewriting.weights.restored import restores
from onnxslim_bert.wording import plural, si

INT8 = ("quantize-static", "quantize-dynamic")
FOR_TARGETS = {*(kind.name for kind in FORMS), "quantize-qdq"}  # `explain` says what those are good for
ANOTHER_MODEL = {"student"}  # what fits any model says nothing of this one
TAKEN_BACK = ("canonicalize", "skip-mask")  # what they do is undone when a file is read: only its notes tell of them
SCALE_BYTES = 4


@dataclass(frozen=True)
class Advice:
    """What a pass would do with a model. applies: whether it would change it; note: how, or why not."""

    name: str
    applies: bool
    note: str


def advise(fused: Model, made: Mapping[str, Change], ran: Collection[str], nbytes: int) -> tuple[Advice, ...]:
    """Advice on every pass for the CPU, in the table's order, for a file of `nbytes`.

    fused: the model after `canonicalize` and `fuse`; made: what those two changed. ran: passes in the file's own notes.
    """
    found: list[Advice] = []
    unasked = FOR_TARGETS | ANOTHER_MODEL | (set() if has_halves(fused) or restores(fused) else {"float32"})
    for name, kind in PASSES.items():
        if name in unasked:
            continue
        if name in TAKEN_BACK and name in ran:
            found.append(Advice(name, False, "the file has it behind it"))
            continue
        try:
            change = made[name] if name in made else _try(kind(), fused, nbytes)
            found.append(Advice(name, bool(change), change.note))
        except SlimError as error:
            found.append(Advice(name, False, str(error)))
    return tuple(found)


def _try(step: Pass, fused: Model, nbytes: int) -> Change:
    wanted = {want.tensor for want in step.wants(fused)}
    if step.name == "float16":
        return _float16(fused, nbytes)
    if step.name in INT8:
        change = _int8(fused, nbytes)
        return Change(change.count, change.note + "; needs calibration data") if wanted else change
    if wanted:
        return Change(len(wanted), f"calibration data decides, on {' and '.join(_told(step, fused))}")
    try:
        return step.apply(fused.clone(), Context())
    except DataError:  # the pass can be used, but measures on calibration data
        return Change(1, "calibration data decides")


def _told(step: Pass, fused: Model) -> list[str]:
    """What a pass wants of calibration data: "the tokens that occur", "12 inputs of dense layers"."""
    counts = [want.kind == "counts" for want in step.wants(fused)]
    dense = len({want.tensor for want in step.wants(fused) if want.kind != "counts"})
    return ["the tokens that occur"] * any(counts) + [f"{plural(dense, 'input')} of dense layers"] * bool(dense)


def _int8(fused: Model, nbytes: int) -> Change:
    layers, tables, saved = int8_savings(fused)
    return Change(
        layers,
        f"{plural(layers, 'dense layer')} and {plural(tables, 'table')} to int8, about {si(nbytes - saved, 'B')}",
    )


def int8_savings(fused: Model) -> tuple[int, int, int]:
    """Dense layers and tables that int8 takes, and the bytes that it saves in them, their scales counted.

    Raises PassError or ModelError where `dense_layers` does.
    """
    linears = dense_layers(fused)
    constants = fused.constants()
    matrices = {x.weight: x.d_out for x in linears}
    tables = {name: len(constants[name].values) for name in fused.encoder.embeddings.tables.values()}
    tables = {name: rows for name, rows in tables.items() if constants[name].values.dtype.kind == "f"}
    saved = sum(
        constants[name].values.nbytes - constants[name].values.size - SCALE_BYTES * scales
        for name, scales in (matrices | tables).items()
    )
    return len(linears), len(tables), saved


def _float16(fused: Model, nbytes: int) -> Change:
    check_is_float(fused)
    floats = [c.values.nbytes for c in fused.constants().values() if c.values.dtype == np.float32 and c.values.size > 1]
    if not floats:
        return Change(0, "no float32 constants are left")
    return Change(
        len(floats), f"{plural(len(floats), 'constant')} to float16, about {si(nbytes - sum(floats) / 2, 'B')}"
    )
