"""Make a bundle: copy the model, tokenize the rows, compute what it should answer."""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime as ort

from onnxslim_bert import __version__
from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.batches import Batch, Batches
from onnxslim_bert.calibration.dataset import Dataset
from onnxslim_bert.calibration.feeding import roles_for
from onnxslim_bert.calibration.working import Working
from onnxslim_bert.device.bundle import sha256_of
from onnxslim_bert.device.manifest import MANIFEST, MODEL, RESULTS, Manifest, RunSettings, vector_file
from onnxslim_bert.device.runner import OPTIONS
from onnxslim_bert.device.vectors import pack
from onnxslim_bert.documents import write_document
from onnxslim_bert.errors import DataError, ModelError, OutputError
from onnxslim_bert.graph.files import check_output, model_files, staging
from onnxslim_bert.graph.naming import give_names
from onnxslim_bert.graph.sessions import open_session
from onnxslim_bert.graph.signature import fixed_shape, in_declared_rank, input_dtypes
from onnxslim_bert.model.model_config import read_config
from onnxslim_bert.model.role_names import Roles
from onnxslim_bert.proof.evaluation import run
from onnxslim_bert.proof.reading import read_model
from onnxslim_bert.targets.table import TARGETS

LONGEST = 128  # tokens kept of a text where no length is asked for


def make_bundle(
    model: Path,
    dataset: Dataset,
    working: Working,
    output: Path,
    plan: RunSettings,
    *,
    base: Path | None = None,
    batch: int | None = None,
    length: int | None = None,
) -> Manifest:
    """Write the bundle `output`, a folder, whole or not at all.

    The expected outputs are what `base` answers on the CPU, or `model` where no base is given. dataset: the rows that
    are fed. plan: how to run; its options are added to the target's own. batch, length: of every test vector; for None,
    what the model fixes, else one row at its own length. Raises DataError, ModelError or OutputError.
    """
    if os.path.lexists(output):
        raise OutputError(f"{output} exists; give another folder")
    check_output(output, overwrite=False)
    base = base or model
    session, reference = open_session(model), open_session(base)
    batch, length = settle_shape(model, session, plan.target, batch, length)
    roles = roles_for(model, dataset, working.tokenizer, session)
    vectors = make_vectors(session, roles, dataset, working, batch, length)
    names = [value.name for value in session.get_outputs()]
    with staging(output) as work:
        folder = work / "bundle"
        folder.mkdir()
        copy_model(model, folder)
        for done, vector in enumerate(vectors):
            (folder / vector_file(done, "input", 0)).parent.mkdir()
            expected = answers(base, reference, vector.feeds, names)
            for side, tensors in (("input", vector.feeds), ("output", expected)):
                for index, (name, values) in enumerate(tensors.items()):
                    (folder / vector_file(done, side, index)).write_bytes(pack(name, values))
            if working.progress:
                working.progress("computing what is expected", done + 1, len(vectors))
        manifest = Manifest(
            schema=Manifest.SCHEMA,
            onnxslim_bert=__version__,
            model=model.name,
            plan=replace(plan, options={**OPTIONS.get(plan.target, {}), **plan.options}),
            batch=batch,
            length=length,
            dimensions=open_axes(session, vectors[0].feeds) if length else {},
            base=base.name,
            base_sha256=sha256_of(base),
            data=dataset.name,
            rows=len(dataset),
            fingerprint=dataset.fingerprint(),
            inputs=tuple(vectors[0].feeds),
            outputs=tuple(names),
            vectors=len(vectors),
            files={file.relative_to(folder).as_posix(): sha256_of(file) for file in files_in(folder)},
        )
        (folder / MANIFEST).write_bytes(write_document(manifest))
        give_names([(folder, output)], overwrite=False, sources=model_files(model))
    return manifest


def settle_shape(
    model: Path, session: ort.InferenceSession, target: str, batch: int | None, length: int | None
) -> tuple[int, int | None]:
    """(batch, length) of the test vectors: what the graph fixes, else what is asked for.

    Raises ModelError when the graph fixes something else, DataError when the target needs a length and none is given.
    """
    fixed_batch, fixed_length = fixed_shape(session)
    for asked, fixed, option in ((batch, fixed_batch, "--batch"), (length, fixed_length, "--seq")):
        if asked and fixed and asked != fixed:
            raise ModelError(f"{model} fixes {option} to {fixed}: it cannot run with {asked}")
    length = length or fixed_length
    if length is None and TARGETS[target].fixed_shapes:
        raise DataError(f"{target} takes fixed shapes only, and {model} leaves the length open: needed --seq")
    return batch or fixed_batch or 1, length


def make_vectors(
    session: ort.InferenceSession,
    roles: Roles,
    dataset: Dataset,
    working: Working,
    batch: int,
    length: int | None,
) -> list[Batch]:
    """The rows as feeds of the session, every batch full. Raises DataError."""
    batches = Batches(
        dataset.alone(),
        input_dtypes(session),
        roles,
        replace(working, max_length=length or LONGEST),
        batch_size=batch,
        fixed_length=length,
        sort_by_length=False,
    )
    vectors = list(batches)
    if any(len(vector.rows) != batch for vector in vectors):
        raise DataError(f"{len(dataset)} rows do not fill batches of {batch}: needed --rows as a multiple of --batch")
    return [replace(vector, feeds=in_declared_rank(session, vector.feeds)) for vector in vectors]


def answers(
    path: Path, session: ort.InferenceSession, feeds: Mapping[str, Array], names: Sequence[str]
) -> dict[str, Array]:
    """The expected outputs: what the model at `path` answers to `feeds`, for the outputs `names` in this order.

    Raises ModelError when it has other inputs or outputs than `session`, or answers NaN or infinity.
    """
    dtypes = input_dtypes(session)
    outputs = {value.name for value in session.get_outputs()}
    missing = [*(name for name in dtypes if name not in feeds), *(name for name in names if name not in outputs)]
    if missing:
        raise ModelError(f"{path} is no base of this model: {missing[0]!r} is an input or output of one of them only")
    found = run(session, path, {name: feeds[name].astype(dtype) for name, dtype in dtypes.items()})
    mask = next(values.reshape(-1, values.shape[-1]) for values in feeds.values() if values.ndim in (2, 3))
    for name in read_model(path, mask, {name: found[name] for name in names}, read_config(path)).outputs:
        if not np.isfinite(found[name]).all():
            raise ModelError(f"{path}: {name} is NaN or infinite on the data: needed finite outputs")
    return {name: found[name] for name in names}


def copy_model(model: Path, folder: Path) -> None:
    """Copy the model to model.onnx in `folder`, with its external data directly beside it.

    Not in folders of its own: runners take every folder beside the model for a test set.
    """
    file, *data = model_files(model)
    shutil.copyfile(file, folder / MODEL)
    for weights in data:
        if weights.parent != model.parent or weights.name in (MODEL, MANIFEST, RESULTS):
            raise ModelError(f"{model} keeps weights in {weights}: needed another name, and beside the model")
        shutil.copyfile(weights, folder / weights.name)


def open_axes(session: ort.InferenceSession, feeds: Mapping[str, Array]) -> dict[str, int]:
    """The sizes that `feeds` give to input axes that have a name and no size in the graph: {name of the axis: size}."""
    axes = [pair for value in session.get_inputs() for pair in zip(value.shape, feeds[value.name].shape, strict=True)]
    return {name: size for name, size in axes if isinstance(name, str)}


def files_in(folder: Path) -> list[Path]:
    """Every file below `folder`, in a fixed order."""
    return sorted(path for path in folder.rglob("*") if path.is_file())
