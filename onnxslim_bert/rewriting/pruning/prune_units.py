"""What prune-heads and prune-ffn share: their options, and what is done with them."""

from dataclasses import dataclass
from typing import ClassVar

from onnxslim_bert.errors import PassError
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.rewriting.contract import Change, Context, Pass
from onnxslim_bert.rewriting.pruning.sites import UnitKind
from onnxslim_bert.rewriting.pruning.widths import prune_to_share


@dataclass(frozen=True)
class PruneUnits(Pass):
    """A pass that removes heads or neurons. Its subclasses say which, and what the options mean for them.

    kind: heads or neurons. grid: layers of at least twice so many units keep a multiple of it, or all.
    """

    kind: ClassVar[UnitKind]
    grid: ClassVar[int]
    keep: float = 0.75
    even: bool = False
    refit: bool = True
    rounds: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.keep <= 1:
            raise PassError(f"{self.name}: keep={self.keep} is not in (0, 1]; 0.75 keeps three quarters")
        if self.rounds < 1:
            raise PassError(f"{self.name}: rounds={self.rounds} removes nothing; needed a number from 1")

    @property
    def measures(self) -> bool:
        return True

    def apply(self, model: Model, ctx: Context) -> Change:
        return prune_to_share(
            model, self.kind, self.keep, self.grid, ctx, even=self.even, refit=self.refit, rounds=self.rounds
        )
