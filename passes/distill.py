"""Train a model that earlier passes have cut, so that it answers as the whole model does."""

import importlib.util
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from onnxslim_bert.errors import PassError
from onnxslim_bert.model.dense import dense_layers, encoder_of
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.rewriting.contract import Change, Context, Pass
from onnxslim_bert.rewriting.options import Weight

LOSSES = ("answers", "chances", "hidden", "relations", "likenesses", "labels")
NOT_NEGATIVE = ("epochs", "steps", "minutes", "layer_epochs", *LOSSES)
POSITIVE = ("texts", "batch", "rate", "temperature")


@dataclass(frozen=True)
class Distill(Pass):
    """Train the model's weights so that it answers as the model that it was cut from; no labels are needed.

    The teacher is the model as it was given to the recipe. The student is the model as earlier passes left it: in
    float, or, with quantized=true, already in integers. Both answer the same texts, those of --corpus or else the
    calibration rows, and the student is trained to come near the teacher. Copies of the texts with some tokens replaced
    by others make the texts more. Texts held back from training say which weights are kept, and when there is nothing
    more to gain.
    Needs PyTorch: pip install 'onnxslim-bert[distill]'.

    What it trains on:
    texts: how many, copies included. Of more texts the longer ones are drawn more often, in proportion to their tokens.
    copies: share of them that are copies; more where there are not enough texts.
    replace: share of a copy's tokens that are replaced; 0 makes no copies.
    join: share of the copies that are made of two texts, one behind the other.
    balance: choose, in place of the longer ones, the texts whose class the teacher is surest of, as many of each class,
        of four times as many as are wanted. For general texts where there are none of the task: the teacher answers all
        of them first, which takes as long as four epochs' answers.

    How long (give one; without any, one epoch):
    epochs: how often all texts are seen.
    steps: how many batches are seen.
    minutes: how long by the clock. The bytes written then depend on the machine's speed; with epochs or steps they are
        the same each time.

    How it trains:
    batch: texts in a step.
    rate: AdamW's highest learning rate; the rate rises to it and then falls to 0. auto is 3e-4, or less for a student
        that answers like its teacher already: 5e-4 times the square root of its error as a share of the teacher's
        variance.
    words: train the word table too.
    quantized: the student is quantized already, by a step before this one. Its integers are trained as they will be
        multiplied, rounded in every step, and so are all scales. What was trained is what is written.
    layer-epochs: with quantized=true, train layer by layer first, each on all texts so often, to leave what the
        teacher's layer leaves: this learns how each integer is rounded. Then the integers stay, and scales, biases and
        norms are trained together towards the answers. 0 trains everything together.
    seed: decides the order of the texts and which tokens are replaced.

    What it makes small is the sum of these losses, each times its weight; weight 0 leaves one out. Squared errors are
    shares of the teacher's variance. auto is 1 for the losses that are usual for what an output is, else 0: answers for
    classes and scores of a text; answers and chances for tags, words and places in a text; answers and likenesses for
    embeddings.
    answers: weight of the squared error of the outputs.
    chances: weight of the divergence between the probabilities of classes or places, both softened by `temperature`.
    hidden: weight of the squared error of each layer's result.
    relations: weight of the difference in how alike tokens are, by queries, keys and values of the last layer.
    likenesses: weight of the difference in how alike texts are, by cosine of their vectors or, where each token has
        one, of the means of those.
    labels: weight of the error against the corpus's labels, where it has some.

    Hinton et al. 2015, https://arxiv.org/abs/1503.02531; Jiao et al. 2019, https://arxiv.org/abs/1909.10351; Wang et
    al. 2021, https://arxiv.org/abs/2012.15828; Chen et al. 2024, https://arxiv.org/abs/2407.11062 (layer-epochs)
    """

    name: ClassVar[str] = "distill"
    texts: int = 24000
    copies: float = 0.5
    replace: float = 0.2
    join: float = 0.5
    balance: bool = False
    epochs: float = 0.0
    steps: int = 0
    minutes: float = 0.0
    batch: int = 32
    rate: Weight = "auto"
    answers: Weight = "auto"
    chances: Weight = "auto"
    temperature: float = 2.0
    hidden: float = 0.0
    relations: float = 0.0
    likenesses: Weight = "auto"
    labels: float = 0.0
    words: bool = False
    quantized: bool = False
    layer_epochs: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for option in NOT_NEGATIVE:
            if getattr(self, option) != "auto" and getattr(self, option) < 0:
                raise PassError(f"distill: {option}={getattr(self, option)} is negative; give 0 or more")
        for option in POSITIVE:
            if getattr(self, option) != "auto" and getattr(self, option) <= 0:
                raise PassError(f"distill: {option}={getattr(self, option)} is not above 0")
        for option in ("copies", "replace", "join"):
            if not 0 <= getattr(self, option) <= 1:
                raise PassError(f"distill: {option}={getattr(self, option)} is not a share from 0 to 1")
        if self.layer_epochs and not self.quantized:
            raise PassError("distill: layer-epochs trains the integers of layers; it goes with quantized=true")
        if sum(bool(value) for value in (self.epochs, self.steps, self.minutes)) > 1:
            raise PassError("distill: epochs, steps and minutes each say how long; give one of them")
        if not any((self.answers, self.chances, self.hidden, self.relations, self.likenesses, self.labels)):
            raise PassError("distill: every loss has weight 0; nothing would be learnt")

    @property
    def measures(self) -> bool:
        return True

    def apply(self, model: Model, ctx: Context) -> Change:
        if not self.quantized and encoder_of(model) is not None:
            dense_layers(model)  # float32, or a PassError
        trials = ctx.trials
        check_torch()
        from onnxslim_bert.rewriting.distillation.distil import distil
        from onnxslim_bert.rewriting.distillation.objective import Weights
        from onnxslim_bert.rewriting.distillation.plan import DistillationPlan
        from onnxslim_bert.rewriting.distillation.quantized_weights import quantized_weights

        if self.quantized != bool(quantized_weights(model)):
            raise PassError(
                "distill: quantized=true, but the model multiplies no integers; run this step behind one that quantizes"
                if self.quantized
                else "distill: the model multiplies integers in part; quantized=true trains them with the rest"
            )
        options: dict[str, Any] = {option.name: getattr(self, option.name) for option in fields(self)} | {
            "epochs": self.epochs or 1.0
        }
        weights = Weights(**{part.name: options[part.name] for part in fields(Weights)})
        plan = DistillationPlan(**{part.name: options[part.name] for part in fields(DistillationPlan)})
        done = distil(model, trials, weights, plan)
        return Change(done.changes, done.note, done.details)


def check_torch() -> None:
    """Raise PassError where PyTorch is not installed."""
    if importlib.util.find_spec("torch") is None:
        raise PassError("distill needs PyTorch, which is not installed: pip install 'onnxslim-bert[distill]'")
