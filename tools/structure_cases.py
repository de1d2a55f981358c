"""What the benchmark of structure takes out of a model, and what may be lost by it."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from operator import ge, le
from typing import Literal

from onnxslim_bert.model.encoder import Encoder

Figure = Literal["drop", "cosine", "speed-up", "MB"]

FUSED = "canonicalize?,fuse?"
INT8 = "first-token?,split-outliers?,smooth?,quantize-static,skip-mask?"
HEAD_SHARES = (0.0, 0.25, 0.5)  # of heads that mixtures take; the rest is neurons
MOST_NEURONS = 0.75


@dataclass(frozen=True)
class Cut:
    """What goes: shares of the encoder's heads and of its neurons, and a number of layers."""

    heads: float = 0.0
    neurons: float = 0.0
    layers: int = 0

    def recipe(self) -> str:
        """The passes that make the cut."""
        passes = [f"drop-layers{{drop={self.layers}}}"] * bool(self.layers)
        passes += [f"prune-heads{{keep={1 - self.heads:.3g}}}"] * bool(self.heads)
        passes += [f"prune-ffn{{keep={1 - self.neurons:.3g}}}"] * bool(self.neurons)
        return ",".join([FUSED, *passes])


@dataclass(frozen=True)
class Limit:
    """A figure that a model is to reach. met: compares the figure with the value."""

    figure: Figure
    met: Callable[[float, float], bool]
    value: float

    def __str__(self) -> str:
        return f"{self.figure} {'≥' if self.met is ge else '≤'} {self.value:g}"

    def verdict(self, found: float | None) -> str:
        """The limit and whether `found` is within."""
        if found is None:
            return f"{self} not measured"
        return f"{self} {'met' if self.met(found, self.value) else '**missed**'}"


@dataclass(frozen=True)
class Case:
    """One line of the table. cut: None where `flops`, a share of the encoder's, go instead. then: passes behind it."""

    name: str
    asked: tuple[Limit, ...]
    cut: Cut | None = None
    flops: float = 0.0
    then: str = ""


def _lost(points: float) -> tuple[Limit, ...]:
    return (Limit("drop", le, points),)


def _close(cosine: float) -> tuple[Limit, ...]:
    return (Limit("cosine", ge, cosine),)


CASES = (
    Case("FFN 25 %", _lost(0.0), Cut(neurons=0.25)),
    Case("FFN 50 %", _lost(0.7), Cut(neurons=0.5)),
    Case("heads 25 %", _lost(0.2), Cut(heads=0.25)),
    Case("heads 50 %", _lost(0.7), Cut(heads=0.5)),
    Case("both 50 %", _lost(1.5), Cut(heads=0.5, neurons=0.5)),
    Case("one layer", _lost(2.0), Cut(layers=1)),
    Case("40 % of FLOPs", _lost(1.0), flops=0.4),
    Case("both 50 %, int8", (Limit("speed-up", ge, 6), Limit("MB", le, 12), *_lost(1.0)), Cut(0.5, 0.5), then=INT8),
)
EMBEDDINGS = (
    Case("FFN 25 %", _close(0.97), Cut(neurons=0.25)),
    Case("FFN 50 %", _close(0.93), Cut(neurons=0.5)),
    Case("heads 25 %", _close(0.97), Cut(heads=0.25)),
    Case("heads 50 %", _close(0.92), Cut(heads=0.5)),
)


def mixtures(encoder: Encoder, attention: float, feed_forward: float, removed: float) -> list[Cut]:
    """Cuts of heads and neurons that take the share `removed` of the encoder's FLOPs, or a little more.

    attention, feed_forward: FLOPs, which are proportional to the heads and to the neurons that are left.
    """
    found: list[Cut] = []
    total = sum(layer.heads for layer in encoder.layers)
    for heads in HEAD_SHARES:
        gone = 1 - math.floor(total * (1 - heads) + 1e-9) / total
        rest = removed * (attention + feed_forward) - gone * attention
        neurons = math.ceil(1000 * rest / feed_forward - 1e-9) / 1000
        if 0 <= neurons <= MOST_NEURONS:
            found.append(Cut(heads, neurons))
    return found
