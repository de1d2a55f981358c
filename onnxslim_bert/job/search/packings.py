"""Measure what storing each int8 matrix in fewer bits does to the answers, and how many bytes it saves."""

import zlib

import numpy as np
import onnx_graphsurgeon as gs

from onnxslim_bert.calibration.observers import Want
from onnxslim_bert.graph.download import GZIP
from onnxslim_bert.graph.edit import Builder
from onnxslim_bert.graph.opsets import raise_opset
from onnxslim_bert.job.search.costs import prunable_sites, site_key
from onnxslim_bert.job.search.matrix_bits import MatrixBits
from onnxslim_bert.job.search.precisions import Int8Trials, static
from onnxslim_bert.job.search.tables import before_int8, showing
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.pack_weights import BITS
from onnxslim_bert.rewriting.int8.int8_matrices import Int8Matrix, int8_matrices, pack, second_moment
from onnxslim_bert.rewriting.int8.packed_weight import OPSET, PackedWeight
from onnxslim_bert.rewriting.trials import Trials

BLOCK = 32
STAGE = "measuring bits"


def measure_bits(model: Model, method: str, trials: Trials, *, packed: bool) -> list[MatrixBits]:
    """Store each matrix of the int8 model in fewer bits, alone: what that does to its answers, and what it saves.

    model: canonicalized and fused. method: of the int8 ranges. packed: count bytes after gzip. Returns one for each of
    `int8_matrices`; none where the graph cannot declare the opset that it takes.
    """
    int8 = Int8Trials.of(before_int8(model, trials), static(method), trials).made()
    matrices = int8_matrices(int8)
    if raise_opset(int8.clone().graph, OPSET):
        return []
    wants = [Want(linear.source, "gram") for matrix in matrices for linear in matrix.readers]
    stats = showing(trials).collect(int8, dict.fromkeys(wants))
    near, homes = trials.towards(int8), _homes(model, int8)
    found: list[MatrixBits] = []
    for matrix in matrices:
        site, layers = homes.get(matrix.readers[0].node, ("", ()))
        if not matrix.is_large:
            found.append(MatrixBits(site, layers, {}, {}))
            continue
        values, moment = matrix.values(int8), second_moment(matrix, stats)
        forms = {bits: pack(values, moment, bits, BLOCK) for bits in BITS}
        variants = [{matrix.weight: _stored(form, matrix)} for form in forms.values()]
        damages = dict(zip(forms, near.damages(int8, variants), strict=True))
        whole = _size(values.tobytes(), packed=packed)
        saved = {bits: float(whole - _size(_file(form), packed=packed)) for bits, form in forms.items()}
        found.append(MatrixBits(site, layers, damages, saved))
        trials.progress(STAGE, len(found), len(matrices))
    return found


def _homes(model: Model, int8: Model) -> dict[str, tuple[str, tuple[int, ...]]]:
    """The site and the layers of each dense layer of `int8`, by its node."""
    found: dict[str, tuple[str, tuple[int, ...]]] = {}
    for layer in int8.encoder.layers:
        for linear in layer.linears.values():
            found |= {matrix.node: ("", (layer.index,)) for matrix in linear.matrices}
    for site in prunable_sites(model):
        for linear in (*site.writers(int8), *site.readers(int8)):
            found |= {matrix.node: (site_key(site), site.layers) for matrix in linear.matrices}
    return found


def _stored(form: PackedWeight, matrix: Int8Matrix) -> np.ndarray:
    restored = form.restored
    return np.ascontiguousarray(restored.T) if matrix.trans_b else restored


def _file(form: PackedWeight) -> bytes:
    """The nodes and constants that restore a matrix, as a file holds them."""
    graph = gs.Graph(opset=OPSET)
    graph.outputs = [form.write(Builder(graph, "packed"))]
    graph.outputs[0].dtype, graph.outputs[0].shape = np.dtype(np.int8), form.restored.shape
    content: bytes = gs.export_onnx(graph).SerializeToString()
    return content


def _size(content: bytes, *, packed: bool) -> int:
    return len(zlib.compress(content, wbits=GZIP)) if packed else len(content)
