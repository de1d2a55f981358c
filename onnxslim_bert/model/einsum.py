"""An Einsum of two operands is a matrix product: of activations, as in attention, or with a constant matrix."""

from dataclasses import dataclass
from itertools import permutations

import numpy as np
import onnx_graphsurgeon as gs

from onnxslim_bert.graph.edit import Builder, redirect
from onnxslim_bert.graph.probe import constant


@dataclass(frozen=True)
class _Product:
    """rows [ahead..., shared..., row, summed...] @ matrix [shared..., summed..., columns...], in letters."""

    rows: gs.Tensor
    matrix: gs.Tensor
    read: tuple[str, str]  # the letters of both as they are
    ahead: str
    summed: str
    shared: str
    columns: str
    written: str


def spell_einsums(graph: gs.Graph) -> int:
    """Write each Einsum that is one matrix product as a MatMul between Transposes; returns how many were rewritten.

    Example: "bqhd,bkhd->bhqk" is [b, h, q, d] @ [b, h, d, k]; "ibh,hnd->ibnd", with a constant [h, n, d], is a dense
    layer of n * d channels. Left as they are: outer products, diagonals, ellipses, sums over one operand alone.
    """
    written = 0
    for node in [node for node in graph.nodes if node.op == "Einsum"]:
        if (product := _product(node)) is not None:
            old = node.outputs[0]
            node.inputs.clear()
            node.outputs.clear()
            redirect(graph, old, _write(Builder(graph, node.name), product))
            written += 1
    return written


def _product(node: gs.Node) -> _Product | None:
    """What `node` multiplies; None where it is no product of activations with a matrix, constant or computed."""
    read, arrow, written = str(node.attrs.get("equation", "")).replace(" ", "").partition("->")
    letters = read.split(",")
    if not arrow or len(letters) != 2 or "." in read or any(len(set(own)) < len(own) for own in letters):
        return None
    for (left, rows), (right, matrix) in permutations(zip(letters, node.inputs, strict=True)):
        ahead = "".join(c for c in left if c not in right)
        columns = "".join(c for c in right if c not in left)
        common = [c for c in left if c in right]
        shared, summed = ("".join(c for c in common if (c in written) == kept) for kept in (True, False))
        is_one = all((ahead, columns, summed)) and sorted(ahead + columns + shared) == sorted(written)
        is_fixed = constant(matrix) is not None
        if is_one and constant(rows) is None and (is_fixed or len(columns + summed) == 2):
            return _Product(rows, matrix, (left, right), ahead, summed, shared, columns, written)
    return None


def _write(build: Builder, product: _Product) -> gs.Tensor:
    ahead = product.ahead[:-1] + product.shared + product.ahead[-1]
    rows = _turned(build, "rows", product.rows, product.read[0], ahead + product.summed)
    if len(product.summed) > 1:
        rows = build.node("Reshape", "flat", [rows, _shape(build, len(ahead), [-1])])
    inner, fixed = product.shared + product.summed + product.columns, constant(product.matrix)
    if fixed is None:
        matrix, widths = _turned(build, "columns", product.matrix, product.read[1], inner), [-1]
    else:
        turned = fixed.transpose([product.read[1].index(c) for c in inner])
        sizes = dict(zip(inner, turned.shape, strict=True))
        widths = [sizes[c] for c in product.columns]
        shape = [*(sizes[c] for c in product.shared), -1, int(np.prod(widths))]
        matrix = build.constant("weight", np.ascontiguousarray(turned.reshape(shape)))
    result = build.node("MatMul", "product", [rows, matrix])
    if len(widths) > 1:
        result = build.node("Reshape", "parted", [result, _shape(build, len(ahead), widths)])
    return _turned(build, "turned", result, ahead + product.columns, product.written)


def _shape(build: Builder, kept: int, sizes: list[int]) -> gs.Constant:
    """A Reshape's target of which the first `kept` axes stay as they are."""
    return build.constant("shape", np.array([0] * kept + sizes, np.int64))


def _turned(build: Builder, name: str, tensor: gs.Tensor, old: str, new: str) -> gs.Tensor:
    """`tensor` with the axes `old` in the order `new`."""
    return tensor if old == new else build.node("Transpose", name, [tensor], perm=[old.index(c) for c in new])
