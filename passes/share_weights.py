"""Store equal weights once; on request, let layers use one set of matrices."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import onnx_graphsurgeon as gs

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.observers import Gram
from onnxslim_bert.contract import Change, Context, Pass, Want
from onnxslim_bert.encoder import Layer
from onnxslim_bert.errors import PassError
from onnxslim_bert.linear import Linear
from onnxslim_bert.model import Model
from onnxslim_bert.regions import producer
from onnxslim_bert.sharing_check import check_can_share
from onnxslim_bert.sharing_fit import Dense, align, fit_shared
from onnxslim_bert.store_once import store_once
from onnxslim_bert.surgery import Builder

ATTENTION, FEED_FORWARD = ("query", "key", "value", "output"), ("up", "down")
ROLES = {"all": ATTENTION + FEED_FORWARD, "attention": ATTENTION, "ffn": FEED_FORWARD}
AT_ONCE = 3  # layers measured in one sweep: second moments may be larger than the weights


@dataclass(frozen=True)
class ShareWeights(Pass):
    """Store every weight once, and with `groups` let consecutive layers use one set of matrices.

    Without `groups`, exact: constants of equal content become one, and a matrix that another one holds transposed (a
    decoder tied to the word table) becomes a Transpose of it, which ONNX Runtime computes when it loads the file. Run
    it last then: other passes find no weight behind a Transpose.

    With `groups`, approximate: each role's matrices become one for a whole group of layers, the least-squares fit to
    what they computed on calibration rows, after heads and neurons were put in the same order. Biases and norms stay
    each layer's own. The file shrinks, also when it is quantized later; nothing runs faster.

    groups: sets of matrices that are left, each for consecutive layers; 0 for the exact part alone.
    roles: the matrices to share: all, attention or ffn.
    ridge: regularization of the fit, above 0, in units of the inputs' mean variance.

    Lan et al. 2020, https://arxiv.org/abs/1909.11942
    """

    name: ClassVar[str] = "share-weights"
    groups: int = 0
    roles: Literal["all", "attention", "ffn"] = "all"
    ridge: float = 1e-3

    def __post_init__(self) -> None:
        if self.groups < 0:
            raise PassError(f"share-weights: groups={self.groups} is negative; 0 is the exact part alone")
        if self.roles not in ROLES:
            raise PassError(f"share-weights: roles={self.roles!r} is not one of {', '.join(ROLES)}")
        if not self.ridge > 0:
            raise PassError(f"share-weights: ridge={self.ridge} is not above 0")

    @property
    def measures(self) -> bool:  # type: ignore[override]
        """Whether calibration rows are needed: the exact part needs none."""
        return self.groups > 0

    def apply(self, model: Model, ctx: Context) -> Change:
        return self._fit(model, ctx) if self.groups else store_once(model)

    def _fit(self, model: Model, ctx: Context) -> Change:
        layers, roles = model.encoder.layers, ROLES[self.roles]
        if self.groups > len(layers):
            raise PassError(f"share-weights: groups={self.groups} is more than there are layers, {len(layers)}")
        parts = np.array_split(np.arange(len(layers)), self.groups)
        parted = [[layers[i] for i in part] for part in parts]
        parted = [group for group in parted if not _share_already(group, roles)]
        for group in parted:
            check_can_share(model, group, roles)
        errors: dict[int, dict[str, float]] = {layer.index: {} for group in parted for layer in group}
        for group in parted:
            aligned: list[dict[str, Dense]] = []
            for dense in _measured(model, ctx, group, roles):
                aligned.append(align(aligned[0], dense, group[0].heads) if aligned else dense)
            for role in roles:
                shared, biases, lost = fit_shared([dense[role] for dense in aligned], self.ridge)
                share(model, [layer.linears[role] for layer in group], shared, biases)
                for layer, error in zip(group, lost, strict=True):
                    errors[layer.index][role] = round(error, 4)
        model.changed()
        return Change(len(errors), self._note(errors), {"relative error": errors})

    def _note(self, errors: dict[int, dict[str, float]]) -> str:
        if not errors:
            return f"in {self.groups} groups, no layers are left that do not share their matrices already"
        lost = {f"{role} of layer {index}": error for index, roles in errors.items() for role, error in roles.items()}
        worst = max(lost, key=lambda place: lost[place])
        return (
            f"{len(errors)} layers share {self.roles} matrices, {self.groups} groups in all; relative error "
            f"{np.mean(list(lost.values())):.2f} on average, {lost[worst]:.2f} in {worst}"
        )


def share(model: Model, linears: Sequence[Linear], weight: Array, biases: Sequence[Array | None]) -> None:
    """Let `linears`, which are of one shape, all multiply by one `weight` [d_in, d_out], each with its own bias."""
    tensors = model.graph.tensors()
    nodes = {node.name: node for node in model.graph.nodes}
    build = Builder(model.graph, "shared")
    stored = build.constant(linears[0].weight, np.ascontiguousarray(weight.T if linears[0].trans_b else weight))
    for linear, bias in zip(linears, biases, strict=True):
        _swap_input(nodes[linear.node], linear.weight, stored)
        adder = producer(tensors[linear.result])
        if linear.bias is not None and bias is not None and adder is not None:
            _swap_input(adder, linear.bias, build.constant(linear.bias, bias))


def _swap_input(node: gs.Node, name: str, new: gs.Tensor) -> None:
    node.inputs[next(i for i, tensor in enumerate(node.inputs) if tensor.name == name)] = new


def _share_already(group: Sequence[Layer], roles: Sequence[str]) -> bool:
    sets = {tuple(layer.linears[role].weight for role in roles if role in layer.linears) for layer in group}
    return len(sets) == 1


def _measured(model: Model, ctx: Context, group: Sequence[Layer], roles: Sequence[str]) -> Iterator[dict[str, Dense]]:
    """The matrices of each layer, with the moments of their inputs."""
    for start in range(0, len(group), AT_ONCE):
        some = [[layer.linears[role] for role in roles] for layer in group[start : start + AT_ONCE]]
        wants = {linear.source: Want(linear.source, "gram") for linears in some for linear in linears}
        grams = ctx.trials.collect(model, wants.values(), "calibrating share-weights")
        for linears in some:
            denses = (_dense(model, linear, grams[wants[linear.source]]) for linear in linears)
            yield dict(zip(roles, denses, strict=True))


def _dense(model: Model, linear: Linear, gram: Gram) -> Dense:
    weight, mean = model.array(linear.weight), gram.sums / gram.rows
    covariance = gram.products / gram.rows - (np.outer(mean, mean) if linear.bias else 0)
    return Dense(
        weight.T if linear.trans_b else weight,
        model.array(linear.bias) if linear.bias else None,
        mean,
        covariance.astype(np.float32),
    )
