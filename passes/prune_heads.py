"""Remove attention heads."""

from dataclasses import dataclass
from typing import ClassVar

from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.rewriting.contract import Change, Context, Pass
from onnxslim_bert.rewriting.pruning.widths import check_keep, check_rounds, prune_to_share


@dataclass(frozen=True)
class PruneHeads(Pass):
    """Remove the attention heads that the encoder misses least, and refit what reads the others.

    A head is `head_dim` columns of query, key and value and the matching rows of `output`. Which ones go follows from
    the inputs of `output` on calibration rows (optimal brain surgeon on blocks); how many go from each layer follows
    from what that does to the model's answers on held-back rows. Then, layer by layer, `output` is refitted by least
    squares on what the pruned layers above give. Every layer keeps a head.

    keep: share of the heads kept over the whole encoder, in (0, 1].
    even: the same share in every layer.
    refit: False only cuts the rows.
    rounds: steps in which they go, at most; what each layer can lose is measured anew before every one. Of 20 that all
    layers share, so that an encoder of more than ten takes one.

    Michel et al. 2019, https://arxiv.org/abs/1905.10650; Kwon et al. 2022, https://arxiv.org/abs/2204.09656
    """

    name: ClassVar[str] = "prune-heads"
    keep: float = 0.75
    even: bool = False
    refit: bool = True
    rounds: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_keep(self.name, self.keep)
        check_rounds(self.name, self.rounds)

    @property
    def measures(self) -> bool:
        return True

    def apply(self, model: Model, ctx: Context) -> Change:
        return prune_to_share(model, "heads", self.keep, 1, ctx, even=self.even, refit=self.refit, rounds=self.rounds)
