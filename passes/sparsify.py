"""Zeros in the dense matrices."""

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.observers import Want
from onnxslim_bert.errors import PassError
from onnxslim_bert.model.dense import dense_layers
from onnxslim_bert.model.linear import Linear
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.rewriting.contract import Change, Context, Pass
from onnxslim_bert.rewriting.weights.sparsity import importance, keep_share, keep_two_of_four
from onnxslim_bert.wording import plural

Score = Literal["wanda", "magnitude"]
Pattern = Literal["unstructured", "2:4"]


@dataclass(frozen=True)
class Sparsify(Pass):
    """Set the weights that matter least to zero; biases, norms and embeddings stay.

    This makes downloads smaller, because zeros compress. The file itself keeps its size and the CPU provider, which has
    no sparse kernels, its speed. The note of a run says how large the matrices are before and after, deflated as a zip
    or a compressed transfer stores them.

    share: the share of each output's weights that become zero, in (0, 1). Example: with 0.5, 192 of an output's 384.
    score: what a weight is worth. wanda: |weight| times the root mean square of its input on calibration rows;
        magnitude: |weight| alone, without data.
    pattern: unstructured takes the least of each output anywhere; 2:4 takes two of every four consecutive inputs, which
        some accelerators run faster, and fixes share at 0.5.

    Han et al. 2015, https://arxiv.org/abs/1506.02626; Sun et al. 2023, https://arxiv.org/abs/2306.11695
    """

    name: ClassVar[str] = "sparsify"
    share: float = 0.5
    score: Score = "wanda"
    pattern: Pattern = "unstructured"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.share < 1:
            raise PassError(f"sparsify: share={self.share} is not between 0 and 1")
        if self.pattern == "2:4" and self.share != 0.5:
            raise PassError(
                f"sparsify: 2:4 leaves half of the weights, so share={self.share} does nothing; leave it out"
            )

    def wants(self, model: Model) -> Iterable[Want]:
        linears = [linear for sharing in matrices(model).values() for linear in sharing]
        return [Want(linear.source, "square") for linear in linears] if self.score == "wanda" else []

    def apply(self, model: Model, ctx: Context) -> Change:
        changed, zeros, weights, before, after = 0, 0, 0, 0, 0
        for name, sharing in matrices(model).items():
            values = model.array(name)
            transposed = sharing[0].trans_b
            matrix = values.T if transposed else values
            kept = self._kept(matrix, [self._square(ctx, linear) for linear in sharing])
            sparse = np.where(kept, matrix, np.float32(0))
            sparse = np.ascontiguousarray(sparse.T if transposed else sparse)
            before, after = before + deflated(values), after + deflated(sparse)
            zeros, weights = zeros + int((sparse == 0).sum()), weights + sparse.size
            if (sparse != values).any():
                model.replace(name, sparse)
                changed += 1
        if not changed:
            return Change(0, "every matrix has these zeros already")
        sizes = f"deflated {before / 1e6:.2f} -> {after / 1e6:.2f} MB (the file keeps its size, the CPU its speed)"
        return Change(
            changed,
            f"{100 * zeros / weights:.1f} % zeros in {plural(changed, 'matrix', 'matrices')}; {sizes}",
        )

    def _square(self, ctx: Context, linear: Linear) -> Array | None:
        return ctx.stats[Want(linear.source, "square")] if self.score == "wanda" else None

    def _kept(self, matrix: Array, squares: list[Array | None]) -> Array:
        """Where weights of `matrix` [d_in, d_out] stay; the layers that share it add up their scores."""
        scores = np.sum([importance(matrix, square) for square in squares], axis=0)
        return keep_share(scores, self.share) if self.pattern == "unstructured" else keep_two_of_four(scores)


def matrices(model: Model) -> dict[str, list[Linear]]:
    """The dense layers by the weight that they share; a weight that is an embedding table too is left out."""
    found: dict[str, list[Linear]] = {}
    tables = model.encoder.embeddings.tables.values()
    for linear in dense_layers(model):
        if linear.weight not in tables:
            found.setdefault(linear.weight, []).append(linear)
    return found


def deflated(values: Array) -> int:
    """Bytes of `values` after deflate (RFC 1951) at its usual level."""
    return len(zlib.compress(np.ascontiguousarray(values).data))
