"""Store each weight once: of constants that are equal, or each other's transpose, one is kept. Exact."""

import numpy as np
import onnx_graphsurgeon as gs

from onnxslim_bert.arrays import Array
from onnxslim_bert.graph.edit import Builder, is_output, redirect
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.simplify import merge_equal_constants
from onnxslim_bert.rewriting.contract import Change

LEAST = 256  # bytes of a matrix; a Transpose takes about as many


def store_once(model: Model) -> Change:
    """Keep one of the constants that are equal or each other's transpose."""
    before = _nbytes(model)
    equal, transposed = merge_equal_constants(model.graph), tie_transposes(model)
    model.changed()
    if not equal + transposed:
        return Change(0, "every weight is stored once already")
    saved = (before - _nbytes(model)) / 1e6
    return Change(equal + transposed, f"{equal} equal and {transposed} transposed constants gone, {saved:.1f} MB less")


def tie_transposes(model: Model) -> int:
    """Replace each matrix that is another's transpose by a Transpose node; return how many were replaced.

    Of two such matrices a table that is looked up is the one that stays. ONNX Runtime computes the Transpose of a
    constant once, when it loads the file.
    """
    matrices = [c for c in model.constants().values() if c.values.ndim == 2 and c.values.nbytes >= LEAST]
    matrices = [matrix for matrix in matrices if not is_output(model.graph, matrix)]
    matrices.sort(key=lambda matrix: all(node.op != "Gather" for node in matrix.outputs))
    kept: dict[tuple[str, tuple[int, ...]], list[gs.Constant]] = {}
    tied = 0
    build = Builder(model.graph, "shared")
    for matrix in matrices:
        dtype, shape = matrix.values.dtype.str, matrix.values.shape
        alike = kept.get((dtype, shape[::-1]), [])
        twin = next((other for other in alike if _are_transposes(matrix.values, other.values)), None)
        if twin is None:
            kept.setdefault((dtype, shape), []).append(matrix)
        else:
            redirect(model.graph, matrix, build.node("Transpose", matrix.name, [twin], perm=[1, 0]))
            tied += 1
    return tied


def _are_transposes(values: Array, others: Array) -> bool:
    """Bit for bit; most pairs differ in the first row already."""
    bits, other_bits = (array.view(f"u{array.itemsize}") for array in (values, others))
    return np.array_equal(bits[0], other_bits[:, 0]) and np.array_equal(bits, other_bits.T)


def _nbytes(model: Model) -> int:
    return sum(constant.values.nbytes for constant in model.constants().values())
