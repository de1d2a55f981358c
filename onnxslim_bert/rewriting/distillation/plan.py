"""What a distillation is asked for."""

from dataclasses import dataclass

from onnxslim_bert.rewriting.options import Weight


@dataclass(frozen=True)
class DistillationPlan:
    """How a student is trained: on how many texts, and for how long.

    texts: to train on in all. copies: the share of them that are enriched copies; more where there are too few texts.
    replace: the share of a copy's tokens that is replaced. join: the share of the copies that are two texts. batch:
    texts a step. balance: take the texts that the teacher answers surest, as many of each class. steps, minutes,
    epochs: the first that is given is the budget. words: train the word table too. quantized: train the integers and
    scales of a quantized student; layer_epochs: the integers layer by layer, each on all texts so often, and then all
    else together.
    """

    texts: int
    batch: int
    copies: float
    replace: float
    join: float
    balance: bool
    epochs: float
    steps: int
    minutes: float
    rate: Weight
    words: bool
    quantized: bool
    layer_epochs: float
    seed: int
