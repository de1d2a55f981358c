"""Write a decoupled model as two files, a passage encoder and the joint part, with what they are in a manifest."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from onnxslim_bert import __version__
from onnxslim_bert.arrays import Array
from onnxslim_bert.documents import write_document
from onnxslim_bert.errors import ModelError, OutputError, PassError
from onnxslim_bert.graph.files import check_output, file_sha256, model_files, staging
from onnxslim_bert.graph.naming import give_names
from onnxslim_bert.graph.sessions import open_session, run
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.simplify import fold
from onnxslim_bert.recipes.promises import HALF, INTEGERS, QUANTIZED, farthest
from onnxslim_bert.recipes.provenance import KEY, MEASURED, forget
from onnxslim_bert.rewriting.pairs.parts import PASSAGE_MASK, STATES, pair_parts
from onnxslim_bert.rewriting.pairs.two_texts import type_input

PASSAGE, JOINT, MANIFEST = "passage.onnx", "joint.onnx", "manifest.json"
TOLERANCE = 1e-4  # of the largest answer, in float32
QUESTIONS, PASSAGES = (5, 1, 3), (4, 7, 1)  # tokens of the made-up pairs on which answers are compared


@dataclass(frozen=True)
class PairManifest:
    """What a folder with the two files of a decoupled model holds.

    model, sha256: the file that was split. layers: how many of its layers passage.onnx has; the joint part runs them on
    questions. hidden: width of the states. states, mask: inputs of joint.onnx, [passages, passage, hidden] and
    [passages, passage]; mask is None for a model without one. passage, question: inputs [batch, tokens] of passage.onnx
    and of joint.onnx. outputs: of joint.onnx. difference: the largest of its answers from the whole model's, on made-up
    pairs, as a share of the largest answer. files: their sha256, in hexadecimal.
    """

    SCHEMA: ClassVar[int] = 1

    schema: int
    onnxslim_bert: str
    model: str
    sha256: str
    layers: int
    hidden: int
    passage: tuple[str, ...]
    question: tuple[str, ...]
    states: str
    mask: str | None
    outputs: tuple[str, ...]
    difference: float
    files: dict[str, str]


def split(path: Path, output: Path) -> PairManifest:
    """Write the folder `output`: passage.onnx, joint.onnx and manifest.json, whole or not at all.

    The two are run on made-up pairs, and must answer what the whole model does, before the folder gets its name.
    Raises PassError for a model whose lower layers do not read the texts apart, OutputError when `output` exists,
    ModelError when the answers differ.
    """
    if os.path.lexists(output):
        raise OutputError(f"{output} exists; give another folder")
    check_output(output, overwrite=False)
    model = Model.load(path)
    fold(model)  # int8 weights in fewer bits hide the layers
    try:
        parts = pair_parts(model)
    except PassError as error:
        raise PassError(f"{path}: {error}") from error
    question = [t.name for t in parts.joint.graph.inputs if t.name not in (STATES, PASSAGE_MASK)]
    with staging(output) as work:
        folder = work / output.name
        folder.mkdir()
        for name, part in ((PASSAGE, parts.passage), (JOINT, parts.joint)):
            forget(part.header, KEY, MEASURED)  # of the whole
            part.save(folder / name)
        difference = _difference(path, model, folder)
        if not difference <= (allowed := _allowed(model)):
            raise ModelError(f"{path}: the two files answer {difference:.2g} of the largest apart; needed {allowed:g}")
        manifest = PairManifest(
            schema=PairManifest.SCHEMA,
            onnxslim_bert=__version__,
            model=path.name,
            sha256=file_sha256(*model_files(path)),
            layers=parts.layers,
            hidden=model.encoder.hidden,
            passage=tuple(tensor.name for tensor in parts.passage.graph.inputs),
            question=tuple(question),
            states=STATES,
            mask=PASSAGE_MASK if model.encoder.mask else None,
            outputs=tuple(tensor.name for tensor in parts.joint.graph.outputs),
            difference=difference,
            files={name: file_sha256(*model_files(folder / name)) for name in (PASSAGE, JOINT)},
        )
        (folder / MANIFEST).write_bytes(write_document(manifest))
        give_names([(folder, output)], overwrite=False, sources=model_files(path))
    return manifest


def _allowed(model: Model) -> float:
    """How far the answers may lie apart: more where activations are rounded to what a batch holds, or in float16."""
    if any(node.op in INTEGERS for node in model.graph.nodes):
        return QUANTIZED
    half = any(tensor.values.dtype == np.float16 for tensor in model.constants().values())
    return HALF if half else TOLERANCE


def _difference(path: Path, model: Model, folder: Path) -> float:
    """How far the parts' answers to made-up pairs lie from those of the whole: padded ones, then one alone."""
    whole, passage, joint = (open_session(file) for file in (path, folder / PASSAGE, folder / JOINT))
    rng, vocabulary = np.random.default_rng(0), model.encoder.embeddings.vocabulary or 3
    found = 0.0
    for pairs in (list(zip(QUESTIONS, PASSAGES, strict=True)) if model.encoder.mask else [], [(5, 7)]):
        texts = [[rng.integers(2, vocabulary, length) for length in pair] for pair in pairs]
        if not texts:
            continue
        asked, read = (_feeds(model, [pair[i] for pair in texts]) for i in (0, 1))
        both = _feeds(model, [np.concatenate(pair) for pair in texts], pairs)
        (states,) = run(passage, read)
        given, ids, mask = asked | {STATES: states}, str(model.encoder.embeddings.ids), model.encoder.mask
        if mask:
            given[PASSAGE_MASK] = read[mask]
        real = both[mask or ids] != 0, np.concatenate([asked[mask or ids], read[mask or ids]], 1) != 0
        answers = zip(run(joint, given), run(whole, both), strict=True)
        compared = [_of_real(ours, theirs, *real) for ours, theirs in answers]
        found = max(found, farthest(*zip(*compared, strict=True)))
    return float(found)


def _feeds(model: Model, texts: Sequence[Array], pairs: Sequence[tuple[int, int]] = ()) -> dict[str, Array]:
    """Ids, mask and, given the lengths of both texts of a pair, types of these rows; shorter ones are padded."""
    encoder, types = model.encoder, type_input(model)
    masks = [np.ones_like(text) for text in texts]
    rows = {name: given for name, given in ((encoder.embeddings.ids, texts), (encoder.mask, masks)) if name is not None}
    if pairs and types is not None:
        rows[types.name] = [np.repeat([0, 1], pair) for pair in pairs]
    length = max(map(len, texts))
    return {
        tensor.name: np.stack([np.pad(row, (0, length - len(row))) for row in rows[tensor.name]]).astype(tensor.dtype)
        for tensor in model.graph.inputs
        if tensor.name in rows
    }


def _of_real(ours: Array, theirs: Array, here: Array, there: Array) -> tuple[Array, Array]:
    """Two answers of the parts and the whole; of real tokens alone, where there is one a token."""
    if (ours.shape[:2], theirs.shape[:2]) == (there.shape, here.shape):
        return ours[there], theirs[here]
    return ours, theirs
