"""Remove attention heads."""

from dataclasses import dataclass
from typing import ClassVar

from onnxslim_bert.rewriting.pruning.prune_units import PruneUnits
from onnxslim_bert.rewriting.pruning.sites import UnitKind


@dataclass(frozen=True)
class PruneHeads(PruneUnits):
    """Remove the attention heads that the encoder misses least, and refit what reads the others.

    A head is `head_dim` columns of query, key and value and the matching rows of `output`, whatever positions do to its
    scores; heads that share a key go together, and count as one. Three questions, in turn:
    1. Which heads of a layer matter least? Those without which `output` can still be fitted best to what it gave on
       calibration rows (optimal brain surgeon on blocks).
    2. How many go from each layer? As many as change the model's answers on held-back rows least, all layers together.
       Every layer keeps one.
    3. What makes up for them? Layer by layer, from the first, `output` is fitted again by least squares, on what it now
       reads.
    Example: 6 layers of 12 heads and keep=0.75 keep 54 of 72, perhaps 12, 10, 9, 9, 8, 6.

    keep: share of the heads kept over the whole encoder, in (0, 1].
    even: keep the same share in every layer, without asking question 2.
    refit: False leaves out question 3: nothing is fitted again.
    rounds: in how many steps they go, at most. Every layer is measured again before each step, and all layers together
        have 20 measurements, so with more than ten layers there is one step. Example: 6 layers and rounds=3 take 18.

    Michel et al. 2019, https://arxiv.org/abs/1905.10650; Kwon et al. 2022, https://arxiv.org/abs/2204.09656
    """

    name: ClassVar[str] = "prune-heads"
    kind: ClassVar[UnitKind] = "heads"
    grid: ClassVar[int] = 1
    rounds: int = 3
