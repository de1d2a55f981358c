"""Let the layers work on fewer channels than the residual stream has."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.observers import Want
from onnxslim_bert.errors import PassError
from onnxslim_bert.model.encoder import Layer
from onnxslim_bert.model.layer_sets import layer_groups
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.spans import Span, find_spans
from onnxslim_bert.rewriting.contract import Change, Context, Pass
from onnxslim_bert.rewriting.pruning.bottleneck import ATTENTION, FEED_FORWARD, write_bottleneck
from onnxslim_bert.rewriting.pruning.stream_choice import choose_channels
from onnxslim_bert.rewriting.pruning.stream_refit import refit
from onnxslim_bert.rewriting.pruning.surgery import check_float32, matrix
from onnxslim_bert.rewriting.trials import Trials

UNSET = -1
GRID = 32  # the widths that int8 kernels run at full speed
GRAM_BYTES = 160e6  # of second moments, held at once


@dataclass(frozen=True)
class Bottleneck(Pass):
    """Let each layer work on fewer channels than the residual stream has, between two matrices of its own.

    The form of MobileBERT's layers: one matrix takes the stream to `width` channels, attention, feed-forward and their
    norms work on those, another matrix takes the result back to the stream, which is added, and a norm follows where
    one did. Embeddings, head and what layers hand on to each other stay as wide as they are, so that what is between
    layers can be compared with the teacher's. Example: of 384 channels width=128 leaves 39 % of a layer's products.

    A layer starts from its own rows: it keeps the channels from which what it reads, and what it leaves, can best be
    computed (optimal brain surgeon on second moments of calibration rows). The refit, from the first layer to the last,
    fits its matrices and the one behind it by least squares to what the whole encoder computes there. That is where
    training starts (`distill`); without it little is left.

    width: the number of channels inside of a layer; without it a third of the stream's, of streams of 256 or more a
        multiple of 32.
    refit: False cuts and fits nothing again.

    Heads and neurons stay; make them fewer before (`prune`). Layers that share their matrices (ALBERT) are refused.

    Sun et al. 2020 (MobileBERT), https://arxiv.org/abs/2004.02984
    """

    name: ClassVar[str] = "bottleneck"
    width: int = UNSET
    refit: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width != UNSET and self.width < 1:
            raise PassError(f"bottleneck: width={self.width} is not 1 or more")

    @property
    def measures(self) -> bool:
        return True

    def apply(self, model: Model, ctx: Context) -> Change:
        hidden, layers = model.encoder.hidden, model.encoder.layers
        width = self.width_of(hidden)
        if width == hidden:
            return Change(0, f"the stream has {hidden} channels already")
        spans = find_spans(model)
        _check(model)
        kept = list(_choices(model, spans, width, ctx.trials))
        narrow, places = model.clone(), []
        for layer, span, channels in zip(layers, spans, kept, strict=True):
            places += write_bottleneck(narrow, layer, span, channels)
        narrow.changed()
        errors = refit(narrow, model, places, np.arange(hidden), ctx.trials) if self.refit else []
        model.graph = narrow.graph
        model.changed()
        note = f"layers work on {width} of {hidden} channels; the answers change by {ctx.trials.damage(model):.1%}"
        return Change(len(layers), note, {"errors": [round(x, 4) for x in errors]})

    def width_of(self, hidden: int) -> int:
        """How many of `hidden` channels a layer works on. Raises PassError for more than there are."""
        if self.width > hidden:
            raise PassError(f"bottleneck: width={self.width} is more than the stream has, {hidden}")
        step = GRID if hidden >= 8 * GRID else 1
        return self.width if self.width != UNSET else max(hidden // 3 // step, 1) * step


def _check(model: Model) -> None:
    """Raise PassError for layers that cannot have a bottleneck each."""
    check_float32(model, {})
    for layer in model.encoder.layers:
        for role, linear in layer.linears.items():
            if linear.factors:
                raise PassError(f"bottleneck: the {role} of layer {layer.index} is in factors; run it before low-rank")
        if layer.first_token:
            raise PassError(f"bottleneck: layer {layer.index} computes one token; run it before first-token")
    if shared := next((group for group in layer_groups(model) if len(group) > 1), None):
        layers = ", ".join(map(str, shared))
        raise PassError(f"bottleneck: layers {layers} share matrices, of which each would need its own")


def _choices(model: Model, spans: Sequence[Span], width: int, trials: Trials) -> Iterator[Array]:
    """The channels that each layer keeps, [width]."""
    layers = model.encoder.layers
    several = max(1, int(GRAM_BYTES / (3 * 8 * model.encoder.hidden**2)))
    for start in range(0, len(layers), several):
        here = [
            _reading(model, layer, span)
            for layer, span in zip(layers[start : start + several], spans[start : start + several], strict=True)
        ]
        wants = dict.fromkeys(Want(name, "gram") for places in here for name, _ in places)
        stats = trials.collect(model, wants, "measuring the stream")
        for places in here:
            yield choose_channels(((stats[Want(name, "gram")], weight) for name, weight in places), width)


def _reading(model: Model, layer: Layer, span: Span) -> list[tuple[str, Array]]:
    """The tensors along the stream from which something is computed, with the matrices that do; and the exit itself."""
    linears = layer.linears
    return [
        (linears[roles[-1]].source, np.hstack([matrix(model, linears[role]) for role in roles if role in linears]))
        for roles in (ATTENTION, FEED_FORWARD)
    ] + [(span.exit, np.eye(model.encoder.hidden))]
