"""Remove neurons of the feed-forward layers."""

from dataclasses import dataclass
from typing import ClassVar

from onnxslim_bert.rewriting.pruning.prune_units import PruneUnits
from onnxslim_bert.rewriting.pruning.sites import UnitKind


@dataclass(frozen=True)
class PruneFfn(PruneUnits):
    """Remove the feed-forward neurons that the encoder misses least, and refit what reads the others.

    A neuron is a column of `up` (and of the gate, where there is one) and a row of `down`. Three questions, in turn:
    1. Which neurons of a layer matter least? Those without which `down` can still be fitted best to what it gave on
       calibration rows (optimal brain surgeon, a few neurons at a time).
    2. How many go from each layer? As many as change the model's answers on held-back rows least, all layers together.
       Layers of 64 neurons or more keep a multiple of 32.
    3. What makes up for them? Layer by layer, from the first, `down` is fitted again by least squares, on what it now
       reads.
    Example: 6 layers of 1,536 neurons and keep=0.75 keep at most 6,912 of 9,216, perhaps 1,536, 1,344, 1,216, 1,088,
    960 and 768.

    keep: share of the neurons kept over the whole encoder, in (0, 1].
    even: keep the same share in every layer, without asking question 2.
    refit: False leaves out question 3: nothing is fitted again.
    rounds: in how many steps they go, at most. Every layer is measured again before each step, and all layers together
        have 20 measurements, so with more than ten layers there is one step. Example: 6 layers and rounds=3 take 18.

    Kwon et al. 2022, https://arxiv.org/abs/2204.09656; Kurtic et al. 2023, https://arxiv.org/abs/2302.04089
    """

    name: ClassVar[str] = "prune-ffn"
    kind: ClassVar[UnitKind] = "neurons"
    grid: ClassVar[int] = 32  # the widths that int8 kernels run at full speed
