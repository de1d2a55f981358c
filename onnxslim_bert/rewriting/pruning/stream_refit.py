"""Fit what reads and writes a narrowed residual stream again, so that it gives what it gave in the whole encoder."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_graphsurgeon as gs

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.observers import Gram, Want
from onnxslim_bert.graph.edit import Builder
from onnxslim_bert.graph.probe import constant, producer
from onnxslim_bert.model.linear import read_linear
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.rewriting.pruning.bridge import best_map, normal_equations
from onnxslim_bert.rewriting.pruning.sites import with_inner
from onnxslim_bert.rewriting.pruning.surgery import matrix, set_dense
from onnxslim_bert.rewriting.resumed_rows import ResumedRows
from onnxslim_bert.rewriting.trials import Trials

WHOLE = "whole/"  # before every name of the encoder as it was
LEAST_SHARE = 0.1  # of what is added to, in a sum of which a norm leaves the scale open


@dataclass(frozen=True)
class Place:
    """Dense layers to refit, by the names of their nodes; all read one tensor.

    was: the name, in the whole encoder, of what they are fitted to: the stream that they read; for a layer that writes
    it, the sum. added: what the result of such a layer is added to; None for those that read. kept: the channels of
    the whole stream that there are here; None for those that `refit` is given. normed: a norm follows on the sum that a
    layer writes, which may therefore become any multiple of what it was.
    """

    nodes: tuple[str, ...]
    was: str
    added: str | None = None
    kept: Array | None = None
    normed: bool = False


def refit(model: Model, whole: Model, places: Sequence[Place], kept: Array, trials: Trials) -> list[float]:
    """Refit dense layers of `model`, whose stream has the channels `kept` [width] of that of `whole`, first to last.

    What reads the stream is fitted by one affine map for all layers that read it there, from the stream as it is now to
    all channels as they were: behind it the layers multiply by their old matrices. First the norm that writes the
    stream there, if any, is rescaled, so that each channel is as near as can be to what it was. What writes the stream
    is fitted so that the sum is nearest to what it was. All are ridge regressions (`best_map`) on rows that pass both
    encoders. Returns their errors, |new - old| / |old| on held-back rows.
    """
    both = _side_by_side(model, whole)
    build = Builder(both.graph, "refit")
    channels = [kept if place.kept is None else place.kept for place in places]
    joined = [_joined(both, build, place, here) for place, here in zip(places, channels, strict=True)]
    ends = list(both.graph.outputs)
    both.graph.outputs = [*ends, *joined]
    both.changed()
    resumed = ResumedRows(both, trials, states=2 * whole.encoder.hidden)
    errors, held = list[float](), 0
    for done, (place, tensor) in enumerate(zip(places, joined, strict=True), start=1):
        held = held if place.added else done - 1  # rows are held where the stream is read: it is narrower than neurons
        part, here = resumed.part(_unfitted(both, places[held:]))
        want = Want(tensor.name, "gram")
        seen, unseen = (here.collect(part, [want], "measuring the stream", held_back=x)[want] for x in (False, True))
        fit = _fit_writer if place.added else _fit_readers
        errors.append(fit(both, whole, place, seen, unseen, channels[done - 1]))
        both.graph.outputs = [*ends, *joined[done:]]
        both.changed()
        trials.progress("refitting the stream", done, len(places))
    model.graph = both.graph
    model.changed()
    return errors


def _side_by_side(model: Model, whole: Model) -> Model:
    """One graph with the nodes of both models on the inputs of the first; names of the second begin with WHOLE."""
    both, other = model.clone(), whole.clone()
    inputs = {tensor.name: tensor for tensor in both.graph.inputs}
    for tensor in other.graph.tensors().values():
        tensor.name = tensor.name if tensor.name in inputs else f"{WHOLE}{tensor.name}"
    for node in other.graph.nodes:
        node.name = f"{WHOLE}{node.name}"
    for node in with_inner(other.graph.nodes):
        node.inputs = [inputs.get(tensor.name, tensor) for tensor in node.inputs]
    both.graph.nodes.extend(other.graph.nodes)
    return both


def _joined(both: Model, build: Builder, place: Place, kept: Array) -> gs.Tensor:
    """A new tensor whose last axis is what the layers at `place` read, and behind it what their fit is to give."""
    tensors = both.graph.tensors()
    source = _nodes(both, place.nodes[0])[0].inputs[0]
    target = tensors[f"{WHOLE}{place.was}"]
    parts = [source, target]
    if place.normed:
        parts = [source, target, tensors[place.added]]
    elif place.added is not None:
        chosen = build.node("Gather", "kept", [target, build.constant("channels", kept.astype(np.int64))], axis=-1)
        parts = [source, build.node("Sub", "target", [chosen, tensors[place.added]])]
    result = build.node("Concat", "joined", parts, axis=-1)
    result.dtype = np.dtype(np.float32)
    return result


def _unfitted(both: Model, places: Sequence[Place]) -> list[str]:
    """The constants that refits at `places` still change, and those of the whole encoder's layers there."""
    names = dict[str, None]()
    for place in places:
        for name in place.nodes:
            for linear in map(read_linear, _nodes(both, name, f"{WHOLE}{name}")):
                names |= dict.fromkeys(filter(None, [linear.weight, linear.bias]))
        if place.added is None:
            names |= dict.fromkeys(tensor.name for _, _, tensor in _norm_vectors(both, place))
    return list(names)


def _fit_readers(both: Model, whole: Model, place: Place, seen: Gram, unseen: Gram, kept: Array) -> float:
    start = np.zeros((len(kept) + 1, len(seen.sums) - len(kept)))
    start[np.arange(len(kept)), kept] = 1.0
    fitted, error = best_map(seen, unseen, start)
    if vectors := _norm_vectors(both, place):
        scale, shift = _channelwise(seen, kept)
        build = Builder(both.graph, "")
        for (node, position, tensor), change in zip(vectors, (0.0, shift), strict=False):
            values = (tensor.values * scale + change).astype(np.float32)
            node.inputs[position] = build.constant(tensor.name, values)
        shift = shift if len(vectors) == 2 else np.zeros_like(shift)
        fitted[-1] -= (shift / scale) @ fitted[:-1]
        fitted[:-1] /= scale[:, None]
    build = Builder(both.graph, "")
    for name in place.nodes:
        now = read_linear(_nodes(both, name)[0])
        weight, bias = np.eye(now.d_out), np.zeros(now.d_out)  # of the layer that restores the stream
        for old in map(read_linear, _nodes(whole, name)):
            weight, bias = matrix(whole, old), whole.array(str(old.bias))
            if old.d_out != now.d_out:  # it writes the stream, too
                weight, bias = weight[:, kept], bias[kept]
        matrix_now, bias_now = fitted[:-1] @ weight, bias + fitted[-1] @ weight
        set_dense(both, build, now, matrix_now.astype(np.float32), bias_now.astype(np.float32))
    return error


def _fit_writer(both: Model, whole: Model, place: Place, seen: Gram, unseen: Gram, kept: Array) -> float:
    linear = read_linear(_nodes(both, place.nodes[0])[0])
    start = np.vstack([matrix(both, linear), both.array(str(linear.bias))]).astype(np.float64)
    share = 1.0
    if place.normed:
        share = _added_share(seen, linear.d_in)
        seen, unseen = (_less_added(gram, linear.d_in, share) for gram in (seen, unseen))
    fitted, error = best_map(seen, unseen, share * start)
    fitted /= share
    set_dense(both, Builder(both.graph, ""), linear, *(x.astype(np.float32) for x in (fitted[:-1], fitted[-1])))
    return error


def _added_share(gram: Gram, width: int) -> float:
    """How much of x there is in s, where r cannot tell: the t for which s - t x is nearest to an affine map of r.

    gram: of rows [r, s, x], r the first `width`, s and x equally wide. A layer that reads r and is added to x then has
    (s - t x) / t to give, and the sum is s but for its scale.
    """
    inputs, products, _ = normal_equations(gram, width)
    ridge = 1e-6 * np.trace(inputs) * np.eye(len(inputs))
    left = gram.products[width:, width:] / gram.rows - products.T @ np.linalg.solve(inputs + ridge, products)
    half = len(left) // 2
    return max(float(np.trace(left[:half, half:]) / max(np.trace(left[half:, half:]), 1e-30)), LEAST_SHARE)


def _less_added(gram: Gram, width: int, share: float) -> Gram:
    """The moments of rows [r, s - share x], of those of rows [r, s, x]; r the first `width`."""
    half = (len(gram.sums) - width) // 2
    mix = np.vstack([np.eye(width + half), np.hstack([np.zeros((half, width)), -share * np.eye(half)])])
    return replace(gram, products=mix.T @ gram.products @ mix, sums=gram.sums @ mix)


def _channelwise(gram: Gram, kept: Array) -> tuple[Array, Array]:
    """The scale and the shift of each channel that bring it nearest to what it was, [width] each; the scale is above 0.

    gram: of rows that hold the kept channels as they are now and then all as they were.
    """
    width = len(kept)
    now, was = np.arange(width), width + kept
    mean = gram.sums / gram.rows
    variance = gram.products[now, now] / gram.rows - mean[now] ** 2
    covariance = gram.products[now, was] / gram.rows - mean[now] * mean[was]
    scale = np.where(covariance > 0, covariance / np.maximum(variance, 1e-12), 1.0)
    scale = np.where(scale > 1e-3, scale, 1.0)
    return scale, mean[was] - scale * mean[now]


def _norm_vectors(both: Model, place: Place) -> list[tuple[gs.Node, int, gs.Constant]]:
    """Gamma and then beta of the norm that writes what is read at `place`, with their places; empty without a norm."""
    above = producer(_nodes(both, place.nodes[0])[0].inputs[0])
    positions = {"LayerNormalization": (1, 2), "SkipLayerNormalization": (2, 3)}.get(above.op if above else "", ())
    found = [
        (above, i, above.inputs[i])
        for i in positions
        if above is not None and len(above.inputs) > i and constant(above.inputs[i]) is not None
    ]
    return found if len(found) == 2 else []


def _nodes(model: Model, *names: str) -> list[gs.Node]:
    """The nodes of these names that the model has."""
    found = {node.name: node for node in model.graph.nodes}
    return [found[name] for name in names if name in found]
