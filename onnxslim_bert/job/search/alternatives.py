"""What a search chooses from: steps with their measured damage and savings."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from onnxslim_bert.job.search.costs import Costs
from onnxslim_bert.job.search.matrix_bits import MatrixBits
from onnxslim_bert.rewriting.pruning.sensitivity import Sensitivity


@dataclass(frozen=True)
class Alternative:
    """A step that a search may take besides narrowing layers; without arguments one that changes nothing.

    step: of a recipe; "" for none. damage: |difference| / |original| of the outputs with this step alone. ms, nbytes:
    milliseconds a run and bytes that it saves, below 0 for what it costs. gone: layers that it removes. after, keep:
    behind the attention of layer `after`, the share `keep` of the tokens goes on; None drops none. floats: layers
    that stay float32. stream: the share of the stream's channels that stay.

    Example: "drop-tokens{keep=0.5,after=1}" has after=1 and keep=0.5.
    """

    step: str = ""
    damage: float = 0.0
    ms: float = 0.0
    nbytes: float = 0.0
    gone: tuple[int, ...] = ()
    after: int | None = None
    keep: float = 1.0
    floats: tuple[int, ...] = ()
    stream: float = 1.0

    def share(self, layer: int) -> float:
        """The share of the tokens that enter `layer`: `keep` behind layer `after`, else 1."""
        return self.keep if self.after is not None and layer > self.after else 1.0


@dataclass(frozen=True)
class MeasuredOptions:
    """Everything that was measured, from which a search chooses a plan.

    sensitivities: the damage of each width of each site. costs: of the int8 model, and what a unit of each site saves.
    layers, embeddings, tokens: steps that drop layers, shrink the word table or drop tokens; the first does nothing.
    streams: steps that make the stream narrower, likewise; none where nothing is distilled.
    method: of the int8 ranges. precisions: the first is int8 in every layer, with the damage that this does; the others
    leave some layers in float32. matrices: the bits that each int8 matrix may have in the file, in the order of
    `int8_matrices`; none where no size is asked for.
    """

    sensitivities: Sequence[Sensitivity]
    costs: Costs
    layers: Sequence[Alternative] = (Alternative(),)
    embeddings: Sequence[Alternative] = (Alternative(),)
    tokens: Sequence[Alternative] = (Alternative(),)
    method: str = "minmax"
    precisions: Sequence[Alternative] = (Alternative(),)
    streams: Sequence[Alternative] = (Alternative(),)
    matrices: Sequence[MatrixBits] = ()

    def shown(self) -> dict[str, Any]:
        """The fields as a report holds them: of `sensitivities` the sites and damages, not the order of units."""
        widths = [{"site": one.site, "damage": one.damage} for one in self.sensitivities]
        return {field.name: getattr(self, field.name) for field in fields(self)} | {"sensitivities": widths}
