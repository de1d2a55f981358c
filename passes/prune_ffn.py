"""Remove neurons of the feed-forward layers."""

from dataclasses import dataclass
from typing import ClassVar

from onnxslim_bert.rewriting.pruning.prune_units import PruneUnits
from onnxslim_bert.rewriting.pruning.sites import UnitKind


@dataclass(frozen=True)
class PruneFfn(PruneUnits):
    """Remove the feed-forward neurons that the encoder misses least, and refit what reads the others.

    A neuron is a column of `up` and a row of `down`. Which ones go follows from the inputs of `down` on calibration
    rows (optimal brain surgeon, a few at a time); how many go from each layer follows from what that does to the
    model's answers on held-back rows, so that the whole encoder loses least. Then, layer by layer, `down` is refitted
    by least squares on what the pruned layers above give. Widths are multiples of 32 where layers are that wide.

    keep: share of the neurons kept over the whole encoder, in (0, 1].
    even: the same share in every layer.
    refit: False only cuts the rows.
    rounds: steps in which they go, at most. Before each step every layer is measured anew; all layers together have 20
    such measurements, so with more than ten layers there is one step. Example: 6 layers and rounds=3 take 18.

    Kwon et al. 2022, https://arxiv.org/abs/2204.09656; Kurtic et al. 2023, https://arxiv.org/abs/2302.04089
    """

    name: ClassVar[str] = "prune-ffn"
    kind: ClassVar[UnitKind] = "neurons"
    grid: ClassVar[int] = 32  # the widths that int8 kernels run at full speed
