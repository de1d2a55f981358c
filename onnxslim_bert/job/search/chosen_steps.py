"""Alternatives that are taken together."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxslim_bert.job.search.alternatives import Alternative
from onnxslim_bert.job.search.costs import Costs, Saving
from onnxslim_bert.rewriting.pruning.sites import Site


@dataclass(frozen=True)
class ChosenSteps:
    """One alternative of each kind."""

    layers: Alternative
    embedding: Alternative
    tokens: Alternative
    precision: Alternative

    @property
    def every(self) -> tuple[Alternative, ...]:
        """All of them."""
        return self.layers, self.embedding, self.tokens, self.precision

    @property
    def float_layers(self) -> tuple[int, ...]:
        """The layers that stay float32, numbered as they are when others are gone."""
        return tuple(i - sum(gone < i for gone in self.layers.gone) for i in self.precision.floats)

    def go_together(self, count: int) -> bool:
        """Whether an encoder of `count` layers can have all of them.

        A drop of tokens counts its layers from the front and needs one behind it; a layer that is gone is not float32.
        """
        if {*self.precision.floats} & {*self.layers.gone}:
            return False
        if self.tokens.after is None or not self.layers.gone:
            return True
        return min(self.layers.gone) > self.tokens.after and self.tokens.after < count - len(self.layers.gone) - 1

    def savings(self, sites: Sequence[Site], costs: Costs) -> list[Saving]:
        """What a unit of each of `sites` saves.

        Those of layers in float32 share what that costs, in proportion to what they save in int8: an approximation, as
        not all that it costs goes with the units.
        """
        floats = [site for site in sites if {*site.layers} <= {*self.precision.floats}]
        ms = _times(self.precision.ms, sum(costs.of(site).ms * site.units for site in floats))
        nbytes = _times(self.precision.nbytes, sum(costs.of(site).nbytes * site.units for site in floats))
        found: list[Saving] = []
        for site in sites:
            int8, is_float = costs.of(site), site in floats
            saved_ms = int8.ms * self._share(site) * (ms if is_float else 1)
            found.append(Saving(saved_ms, int8.nbytes * (nbytes if is_float else 1)))
        return found

    def saved_ms(self) -> float:
        """What they save, less for layers that see fewer tokens."""
        there, floats = (
            float(np.mean([self.tokens.share(layer) for layer in layers] or [1.0]))
            for layers in (self.layers.gone, self.precision.floats)
        )
        return self.layers.ms * there + self.embedding.ms + self.tokens.ms + self.precision.ms * floats

    def _share(self, site: Site) -> float:
        """Of the time that a unit of `site` takes, what is left when layers are gone and others see fewer tokens.

        Tokens are dropped between a layer's attention and its feed-forward.
        """
        is_later, gone = site.kind == "neurons", self.layers.gone
        return float(np.mean([0.0 if i in gone else self.tokens.share(i + is_later) for i in site.layers]))


def _times(saved: float, int8: float) -> float:
    """How many times as much float32 costs, from what it saves (less than nothing) and what int8 costs."""
    return max(1.0, 1 - saved / int8) if int8 else 1.0
