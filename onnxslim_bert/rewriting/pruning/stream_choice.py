"""Which channels of the residual stream can be told from the others, and matter least to what reads them."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.observers import Gram
from onnxslim_bert.model.linear import Linear, is_linear, read_linear
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.rewriting.pruning.least_squares import eliminate, moments, refit, with_ridge
from onnxslim_bert.rewriting.pruning.stream import Stream
from onnxslim_bert.rewriting.pruning.surgery import matrix

RIDGE = 1e-3


def stream_readers(model: Model, stream: Stream) -> dict[str, list[Linear]]:
    """The dense layers that read the stream, by the tensor that they read, in execution order."""
    reading = {cut.node for cut in stream.cuts if cut.reads}
    found: dict[str, list[Linear]] = {}
    for node in model.graph.nodes:
        if node.name in reading and is_linear(node) and node.inputs[0].name in stream.axes:
            found.setdefault(node.inputs[0].name, []).append(read_linear(node))
    return found


def choose_channels(places: Iterable[tuple[Gram, Array]], width: int) -> Array:
    """The `width` channels to keep, ascending.

    places: of each place where the stream is read, its moments there, and the matrices [channels, d_out] of all that
    reads it there.
    Channels go a few at a time, those first without which what is read can still be computed best from the others
    (`eliminate`). Every place counts the same: its moments are divided by their trace, and its matrices by the size of
    what they give.
    """
    pooled, reading = np.zeros(()), np.zeros(())
    for gram, weight in places:
        covariance, _ = moments([gram])
        size = float(np.sum((covariance @ weight) * weight))
        pooled = pooled + covariance / max(float(np.trace(covariance)), 1e-30)
        reading = reading + weight.astype(np.float64) @ weight.T / max(size, 1e-30)
    values, vectors = np.linalg.eigh(reading)
    order, _ = eliminate(with_ridge(pooled, RIDGE), vectors * np.sqrt(np.maximum(values, 0.0)), 1)
    return np.sort(order[len(order) - width :])


def all_channels(gram: Gram, kept: Array) -> tuple[Array, Array]:
    """The affine map from the channels `kept` to all that is nearest on the rows of `gram`.

    Returns weight [width, channels] and bias [channels].
    """
    covariance, mean = moments([gram])
    weight = refit(with_ridge(covariance, RIDGE), np.eye(len(mean)), kept)[kept]
    return weight, mean - mean[kept] @ weight


def together(model: Model, readers: Mapping[str, Sequence[Linear]]) -> dict[str, Array]:
    """The matrices of the layers that read each tensor, side by side: [channels, d_out of all]."""
    return {name: np.hstack([matrix(model, linear) for linear in linears]) for name, linears in readers.items()}
