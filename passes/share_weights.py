"""Store equal weights once; on request, let layers use one set of matrices."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from onnxslim_bert.calibration.observers import Gram, Want
from onnxslim_bert.errors import PassError
from onnxslim_bert.graph.edit import Builder
from onnxslim_bert.model.encoder import Layer
from onnxslim_bert.model.linear import Linear
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.rewriting.contract import Change, Context, Pass
from onnxslim_bert.rewriting.pruning.sites import check_plain, find_sites
from onnxslim_bert.rewriting.pruning.surgery import matrix, set_dense
from onnxslim_bert.rewriting.weights.sharing_fit import Dense, SharedFit
from onnxslim_bert.rewriting.weights.sharing_order import align
from onnxslim_bert.rewriting.weights.store_once import store_once
from onnxslim_bert.wording import plural

ATTENTION, FEED_FORWARD = ("query", "key", "value", "output"), ("up", "down")
ROLES = {"all": ATTENTION + FEED_FORWARD, "attention": ATTENTION, "ffn": FEED_FORWARD}
AT_ONCE = 2  # layers measured in one sweep: second moments may be larger than the weights


@dataclass(frozen=True)
class ShareWeights(Pass):
    """Store every weight once, and with `groups` let consecutive layers use one set of matrices.

    Without `groups` the pass is exact. Constants of equal content become one. A matrix that is the transpose of another
    (a decoder tied to the word table) becomes a Transpose node, which ONNX Runtime computes when it loads the file. Run
    it last then, because other passes find no weight behind a Transpose.

    With `groups` the pass is approximate. Consecutive layers form a group, and all layers of a group use one query
    matrix, one key matrix, and so on. Example: 6 layers and groups=2 leave two sets, for layers 0 to 2 and 3 to 5.
    First, heads (where attention is proven) and neurons of the group's layers are put in the same order; then each
    matrix is the least-squares fit to what the old ones computed on calibration rows. Biases and norms stay each
    layer's own. The file shrinks, also when it is quantized later; nothing runs faster.

    groups: how many sets of matrices are left; 0 for the exact part alone.
    roles: the matrices to share: all, attention or ffn.
    ridge: regularization of the fit, above 0, as a share of the inputs' mean variance.

    Lan et al. 2020, https://arxiv.org/abs/1909.11942
    """

    name: ClassVar[str] = "share-weights"
    exact: ClassVar[float | None] = 1e-5
    empty_rows: ClassVar[bool] = True
    groups: int = 0
    roles: Literal["all", "attention", "ffn"] = "all"
    ridge: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.groups < 0:
            raise PassError(f"share-weights: groups={self.groups} is negative; 0 is the exact part alone")
        if not self.ridge > 0:
            raise PassError(f"share-weights: ridge={self.ridge} is not above 0")

    @property
    def tolerance(self) -> float | None:
        return None if self.groups else self.exact

    @property
    def measures(self) -> bool:
        """Whether calibration rows are needed: the exact part needs none."""
        return self.groups > 0

    def apply(self, model: Model, ctx: Context) -> Change:
        return self._fit(model, ctx) if self.groups else store_once(model)

    def _fit(self, model: Model, ctx: Context) -> Change:
        layers = model.encoder.layers
        is_gated = "up" in ROLES[self.roles] and any(layer.gate for layer in layers)
        roles = (*ROLES[self.roles], *["gate"] * is_gated)
        if self.groups > len(layers):
            raise PassError(f"share-weights: groups={self.groups} is more than there are layers, {len(layers)}")
        parts = [[layers[i] for i in part] for part in np.array_split(np.arange(len(layers)), self.groups)]
        groups = [group for group in parts if not _share_already(group, roles)]
        if groups:
            check_can_share(model, groups, roles)
        build = Builder(model.graph, "shared")
        errors: dict[int, dict[str, float]] = {}
        for group in groups:
            errors |= self._share_group(model, ctx, build, group, roles)
        model.changed()
        return Change(len(errors), self._note(errors), {"relative error": errors})

    def _share_group(
        self, model: Model, ctx: Context, build: Builder, group: Sequence[Layer], roles: Sequence[str]
    ) -> dict[int, dict[str, float]]:
        """Give the layers one set of matrices; the error of each layer's roles."""
        errors: dict[int, dict[str, float]] = {layer.index: {} for layer in group}
        for role, fit in _fit_group(model, ctx, group, roles).items():
            weight, biases, lost = fit.solve(self.ridge)
            for layer, bias, error in zip(group, biases, lost, strict=True):
                set_dense(model, build, layer.linears[role], weight, bias)
                errors[layer.index][role] = round(error, 4)
        return errors

    def _note(self, errors: dict[int, dict[str, float]]) -> str:
        if not errors:
            return f"in {self.groups} groups, no layers are left that do not share their matrices already"
        lost = {f"{role} of layer {index}": error for index, roles in errors.items() for role, error in roles.items()}
        worst = max(lost, key=lambda place: lost[place])
        return (
            f"{plural(len(errors), 'layer')}, {self.roles} matrices shared in {plural(self.groups, 'group')}; "
            f"relative error {np.mean(list(lost.values())):.2f} on average, {lost[worst]:.2f} in {worst}"
        )


def check_can_share(model: Model, groups: Sequence[Sequence[Layer]], roles: Sequence[str]) -> None:
    """Raise PassError unless matrices are plain, neurons can be reordered and a group has one shape a role."""
    if "query" in roles:
        for layer in model.encoder.layers:
            check_plain(model, layer, "heads")
        if all(_heads_can_move(group) for group in groups):
            find_sites(model, "heads")
    if "up" in roles:
        find_sites(model, "neurons")
    for group in groups:
        for layer in group:
            for role in roles:
                found, needed = _shape(layer, role), _shape(group[0], role)
                if found != needed:
                    raise PassError(
                        f"layer {layer.index}: {role} is {found}, and in layer {group[0].index} {needed}; "
                        "layers that share need equal widths"
                    )


def _heads_can_move(group: Sequence[Layer]) -> bool:
    """Whether heads may change places: not where something may be each head's own, as relative positions are."""
    return all(layer.form is not None for layer in group)


def _shape(layer: Layer, role: str) -> str:
    if role not in layer.linears:
        return "not there"
    linear = layer.linears[role]
    heads = f", {layer.heads} heads" * (role in ATTENTION)
    return f"{linear.d_in}x{linear.d_out}{heads}{', stored transposed' * linear.trans_b}"


def _share_already(group: Sequence[Layer], roles: Sequence[str]) -> bool:
    sets = {tuple(layer.linears[role].weight for role in roles if role in layer.linears) for layer in group}
    return len(sets) == 1


def _fit_group(model: Model, ctx: Context, group: Sequence[Layer], roles: Sequence[str]) -> dict[str, SharedFit]:
    """The fit of each role over all layers of the group, with heads and neurons in the order of the first layer."""
    fits = {role: SharedFit() for role in roles}
    first: dict[str, Dense] | None = None
    for start in range(0, len(group), AT_ONCE):
        heads = group[0].heads if _heads_can_move(group) else 0
        first = _add(fits, measured(model, ctx, group[start : start + AT_ONCE], roles), first, heads)
    return fits


def _add(
    fits: Mapping[str, SharedFit], layers: Sequence[dict[str, Dense]], first: dict[str, Dense] | None, heads: int
) -> dict[str, Dense] | None:
    """Add `layers` to the fits, with heads and neurons in the order of the group's first layer, which is returned."""
    for layer in layers:
        first, aligned = (first, align(first, layer, heads)) if first else (layer, layer)
        for role, dense in aligned.items():
            fits[role].add(dense)
    return first


def measured(model: Model, ctx: Context, layers: Sequence[Layer], roles: Sequence[str]) -> list[dict[str, Dense]]:
    """For each layer, by role, its matrix and bias with mean, covariance and a sample of its inputs."""
    sources = dict.fromkeys(layer.linears[role].source for layer in layers for role in roles)
    wants = [Want(source, kind) for source in sources for kind in ("gram", "sample")]
    stats = ctx.trials.collect(model, wants, "calibrating share-weights")
    return [{role: _dense(model, layer.linears[role], stats) for role in roles} for layer in layers]


def _dense(model: Model, linear: Linear, stats: Mapping[Want, Any]) -> Dense:
    gram: Gram = stats[Want(linear.source, "gram")]
    mean = gram.sums / gram.rows
    covariance = gram.products / gram.rows
    if linear.bias:
        covariance -= np.outer(mean, mean)
    return Dense(
        weight=matrix(model, linear),
        bias=model.array(linear.bias) if linear.bias else None,
        mean=mean.astype(np.float32),
        covariance=covariance.astype(np.float32),
        rows=stats[Want(linear.source, "sample")],
    )
