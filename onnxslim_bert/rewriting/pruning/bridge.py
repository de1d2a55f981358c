"""Refit the layer before a removed one, so that it makes up for it: a `bridge` over the gap, by least squares."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.observers import Gram, Want
from onnxslim_bert.graph.edit import Builder, redirect, sort_nodes
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.spans import Span
from onnxslim_bert.rewriting.pruning.prune import RIDGES
from onnxslim_bert.rewriting.pruning.surgery import matrix, set_dense
from onnxslim_bert.rewriting.trials import Trials

GRAM_BYTES = 160e6  # held at once


@dataclass(frozen=True)
class Bridge:
    """The new `down` of the layer before the removed one: weight [d_in, hidden], bias [hidden].

    error: |new - old| / |old| on held-back rows, where old is what `down` should give: the residual stream behind the
    removed layer, before any norm, less the stream that `down` adds to.
    """

    weight: Array
    bias: Array
    error: float


def can_bridge(model: Model, gap: int) -> bool:
    """Whether `down` of the layer before layer `gap` can be refitted when that one goes.

    It can when there is a layer before, whose `down` has a bias, is not in factors and is shared with no other layer,
    and when layer `gap` computes every token.
    """
    layers = model.encoder.layers
    if gap == 0 or layers[gap].first_token:
        return False
    down = layers[gap - 1].linears["down"]
    users = [layer for layer in layers if layer.linears["down"].weight == down.weight]
    return len(users) == 1 and not down.factors and down.bias is not None


def fit_bridges(model: Model, spans: Sequence[Span], gaps: Sequence[int], trials: Trials) -> dict[int, Bridge]:
    """The bridge over each of the layers `gaps`, each as if it alone were removed.

    A bridge is a ridge regression from what `down` reads to what it should give. Both are joined to one tensor in a
    copy of the graph, because its second moments hold all that the regression needs. See `best_map` for the ridge.
    """
    probe, joined = model.clone(), dict[int, Want]()
    build = Builder(probe.graph, "bridge")
    tensors = probe.graph.tensors()
    for gap in gaps:
        down = model.encoder.layers[gap - 1].linears["down"]
        source, result = tensors[down.source], tensors[down.result]
        lost = build.node("Sub", "lost", [tensors[spans[gap].ffn_sum], tensors[spans[gap - 1].ffn_sum]])
        target = build.node("Add", "target", [result, lost])
        joined[gap] = Want(build.node("Concat", "joined", [source, target], axis=-1).name, "gram")
    sort_nodes(probe.graph)
    bridges: dict[int, Bridge] = {}
    for group in _groups(model, gaps):
        wants = [joined[gap] for gap in group]
        seen, unseen = (trials.collect(probe, wants, "measuring layers", held_back=other) for other in (False, True))
        for gap, want in zip(group, wants, strict=True):
            down = model.encoder.layers[gap - 1].linears["down"]
            start = np.vstack([matrix(model, down), model.array(str(down.bias))]).astype(np.float64)
            fitted, error = best_map(seen.pop(want), unseen.pop(want), start)
            bridges[gap] = Bridge(fitted[:-1].astype(np.float32), fitted[-1].astype(np.float32), error)
    return bridges


def _groups(model: Model, gaps: Sequence[int]) -> Iterator[Sequence[int]]:
    """`gaps` in groups, so small that the second moments of a group, on two sets of rows, fit into GRAM_BYTES."""
    widest = max((layer.linears["down"].d_in + model.encoder.hidden for layer in model.encoder.layers), default=1)
    count = max(1, int(GRAM_BYTES / (2 * 8 * widest**2)))
    return (gaps[start : start + count] for start in range(0, len(gaps), count))


def best_map(seen: Gram, unseen: Gram, start: Array) -> tuple[Array, float]:
    """The affine map from inputs x to targets t that is best on `unseen` rows, and its error there, relative to |t|.

    seen, unseen: moments of rows [x, t] joined. start [width of x + 1, width of t]: the map as it is now, its last row
    the bias. Candidates are `start` and, for each of RIDGES, the map fitted to the `seen` rows with a ridge that pulls
    towards `start`. Returns a map of the shape of `start`.
    """
    inputs, products, _ = normal_equations(seen, len(start) - 1)
    ridge = np.full(len(start), np.trace(inputs[:-1, :-1]) / (len(start) - 1) or 1.0)
    ridge[-1] = 0.0
    missing = products - inputs @ start
    candidates = [start + np.linalg.solve(inputs + np.diag(ridge * share), missing) for share in RIDGES]
    judge, wanted, size = normal_equations(unseen, len(start) - 1)
    scored = [
        (size - 2 * np.sum(wanted * fitted) + np.sum((judge @ fitted) * fitted), i)
        for i, fitted in enumerate([*candidates, start])
    ]
    least, chosen = min(scored)
    return [*candidates, start][chosen], float(np.sqrt(max(least, 0.0) / max(size, 1e-30)))


def normal_equations(gram: Gram, width: int) -> tuple[Array, Array, float]:
    """The means over rows of z zᵀ, z tᵀ and |t|², for z = [x, 1]. gram: of rows [x, t] joined, x the first `width`."""
    inputs = np.block(
        [[gram.products[:width, :width], gram.sums[:width, None]], [gram.sums[None, :width], np.array([[gram.rows]])]]
    )
    products = np.vstack([gram.products[:width, width:], gram.sums[width:]])
    return inputs / gram.rows, products / gram.rows, float(np.trace(gram.products[width:, width:])) / gram.rows


def bridge_gap(model: Model, before: Span, gone: Span, bridge: Bridge) -> None:
    """Remove the layer `gone` and give the one before it the bridge; behind that comes the norm of the removed one."""
    tensors = model.graph.tensors()
    down = model.encoder.layers[before.index].linears["down"]
    set_dense(model, Builder(model.graph, ""), down, bridge.weight, bridge.bias)
    redirect(model.graph, tensors[gone.ffn_sum], tensors[before.ffn_sum])
    model.changed()
