"""What a search chooses from, as it was measured."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from onnxslim_bert.job.search.costs import Costs
from onnxslim_bert.rewriting.pruning.sensitivity import Sensitivity


@dataclass(frozen=True)
class Alternative:
    """A step that may be taken besides narrowing; an empty one changes nothing.

    damage: of the step alone. ms, nbytes: what it saves, below zero for what it costs. gone: layers that it removes.
    keep: the share of the tokens that goes on from layer `after`, if any are dropped. floats: layers that stay float32.
    """

    step: str = ""
    damage: float = 0.0
    ms: float = 0.0
    nbytes: float = 0.0
    gone: tuple[int, ...] = ()
    after: int | None = None
    keep: float = 1.0
    floats: tuple[int, ...] = ()

    def share(self, layer: int) -> float:
        """The share of the tokens that enter `layer`."""
        return self.keep if self.after is not None and layer > self.after else 1.0


@dataclass(frozen=True)
class Measurements:
    """Everything that was measured.

    Each list of alternatives begins with the empty one. That of `precisions` is int8 in every layer, which has a damage
    of its own; the others leave some layers in float32.
    """

    sensitivities: Sequence[Sensitivity]
    costs: Costs
    layers: Sequence[Alternative] = (Alternative(),)
    embeddings: Sequence[Alternative] = (Alternative(),)
    tokens: Sequence[Alternative] = (Alternative(),)
    method: str = "minmax"
    precisions: Sequence[Alternative] = (Alternative(),)

    def shown(self) -> dict[str, Any]:
        """What a report holds of it: all but the order in which units go."""
        widths = [{"site": one.site, "damage": one.damage} for one in self.sensitivities]
        return {field.name: getattr(self, field.name) for field in fields(self)} | {"sensitivities": widths}
