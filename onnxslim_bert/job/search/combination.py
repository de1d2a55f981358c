"""One choice among the steps other than narrowing: an alternative of each kind, taken together."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxslim_bert.job.search.alternatives import Alternative
from onnxslim_bert.job.search.costs import Costs, Saving
from onnxslim_bert.rewriting.pruning.sites import Site

NOTHING = Alternative()


@dataclass(frozen=True)
class Combination:
    """One alternative of each kind: layers dropped, word table shrunk, tokens dropped, float layers, a narrower stream.

    An empty `Alternative` means that nothing is done of its kind. On a share of the stream's channels all else works on
    that share and saves so much less: an approximation, as scores of attention do not become fewer.
    """

    layers: Alternative
    embedding: Alternative
    tokens: Alternative
    precision: Alternative
    stream: Alternative = NOTHING

    @property
    def every(self) -> tuple[Alternative, ...]:
        """All of them."""
        return self.layers, self.embedding, self.tokens, self.precision, self.stream

    @property
    def float_layers(self) -> tuple[int, ...]:
        """Numbers of the layers that stay float32, as they are once the dropped layers are gone.

        Example: layers 1 and 4 stay float32 and layers 0 and 2 are dropped: (0, 2).
        """
        return tuple(i - sum(gone < i for gone in self.layers.gone) for i in self.precision.floats)

    def go_together(self, count: int) -> bool:
        """Whether an encoder of `count` layers can have all of them.

        No layer is both dropped and left in float32, and some layer that stays is int8. Where tokens are dropped behind
        layer `after`, the layers up to `after` stay, and so does at least one layer behind it. Example: 4 layers and
        after=1: layer 3 can be dropped, layer 0 cannot, nor can layers 2 and 3 together.
        """
        floats, gone = {*self.precision.floats}, {*self.layers.gone}
        if floats & gone or (floats and len(floats) + len(gone) >= count):
            return False
        if self.tokens.after is None or not self.layers.gone:
            return True
        return min(self.layers.gone) > self.tokens.after and self.tokens.after < count - len(self.layers.gone) - 1

    def savings(self, sites: Sequence[Site], costs: Costs) -> list[Saving]:
        """Milliseconds and bytes that leaving out one unit of each of `sites` saves, in the order of `sites`.

        A unit of a float32 layer saves more than in int8, by the factor by which the units of all float32 layers
        together cost more. Example: 4 heads of 1 ms each in int8, and float32 costs 4 ms more: each head saves 2 ms.
        An approximation: it assumes that float32 costs nothing more outside of the units.
        """
        floats = [site for site in sites if {*site.layers} <= {*self.precision.floats}]
        ms = _times(self.precision.ms, sum(costs.of(site).ms * site.units for site in floats))
        nbytes = _times(self.precision.nbytes, sum(costs.of(site).nbytes * site.units for site in floats))
        found: list[Saving] = []
        for site in sites:
            int8, is_float = costs.of(site), site in floats
            saved_ms = int8.ms * self._share(site) * (ms if is_float else 1)
            saved_bytes = int8.nbytes * (nbytes if is_float else 1)
            found.append(Saving(saved_ms * self.stream.stream, saved_bytes * self.stream.stream))
        return found

    def saved_ms(self) -> float:
        """Milliseconds that the alternatives save together.

        Behind a drop of tokens a layer works on a share of them; what dropping it saves, or keeping it in float32
        costs, counts by that share. Example: half of the tokens go on (saves 9 ms), and a layer behind is dropped that
        saves 6 ms with all tokens: 9 + 3 = 12 ms.
        """
        there, floats = (
            float(np.mean([self.tokens.share(layer) for layer in layers] or [1.0]))
            for layers in (self.layers.gone, self.precision.floats)
        )
        others = self.layers.ms * there + self.embedding.ms + self.tokens.ms + self.precision.ms * floats
        return self.stream.ms + others * self.stream.stream

    def saved_bytes(self) -> float:
        """Bytes that the alternatives save together."""
        others = self.layers.nbytes + self.embedding.nbytes + self.tokens.nbytes + self.precision.nbytes
        return self.stream.nbytes + others * self.stream.stream

    def _share(self, site: Site) -> float:
        """The share of a unit's time in the whole model that the unit still takes: the mean over the site's layers.

        It is 0 for a dropped layer, and the share of the tokens behind a drop of tokens. Tokens are dropped between a
        layer's attention and its feed-forward, so that in layer `after` the neurons see fewer already, the heads not.
        """
        is_later, gone = site.kind == "neurons", self.layers.gone
        return float(np.mean([0.0 if i in gone else self.tokens.share(i + is_later) for i in site.layers]))


def _times(saved: float, int8: float) -> float:
    """How many times as much as int8 float32 costs, at least 1.

    saved: what float32 saves, below 0 as it costs more. int8: what int8 costs. Example: -4 and 4 ms: 2.
    """
    return max(1.0, 1 - saved / int8) if int8 else 1.0
