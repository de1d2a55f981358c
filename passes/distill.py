"""Train what is left of a model towards the answers of the whole."""

import importlib.util
from dataclasses import dataclass
from typing import ClassVar

from onnxslim_bert.errors import PassError
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.rewriting.contract import Change, Context, Pass

NOT_NEGATIVE = ("epochs", "steps", "minutes", "answers", "chances", "hidden", "relations", "likenesses", "labels")
POSITIVE = ("texts", "batch", "rate", "temperature")


@dataclass(frozen=True)
class Distill(Pass):
    """Train the weights so that the model answers as the one it was made from.

    The teacher is the model as it was given, the student the model as earlier passes left it: cut, and still in float.
    No labels are needed. Texts are those of --corpus, or else the calibration rows; copies of them in which a fifth of
    the tokens is replaced by others make them more. Texts held back from training say which weights are kept and when
    there is nothing more to gain. Needs PyTorch: pip install 'onnxslim-bert[distill]'.

    texts: to train on, half of them copies with replaced tokens, or more where there are fewer texts.
    replace: share of the tokens replaced in a copy; 0 makes no copies.
    join: share of the copies that are two texts, one behind the other.
    epochs: how often all are seen. steps: instead, how many batches. minutes: instead, how long by the clock; then the
        bytes depend on the speed of the machine, while with epochs or steps they are the same each time.
    batch: texts in a step. rate: of AdamW at its highest; it rises to it and then falls to nothing.
    answers: weight of the squared error of the outputs. chances: of the divergence of the classes' chances, at
        `temperature`. hidden: of the squared error of what each layer leaves. relations: of the relations between
        queries, keys and values in the last layer. likenesses: of the cosines between texts, for outputs that are
        vectors. labels: of the labels of the corpus. Errors are shares of the teacher's variance.
    words: train the word table too.
    seed: of the order of the texts and of the tokens replaced.

    Hinton et al. 2015, https://arxiv.org/abs/1503.02531; Jiao et al. 2019, https://arxiv.org/abs/1909.10351; Wang et
    al. 2021, https://arxiv.org/abs/2012.15828
    """

    name: ClassVar[str] = "distill"
    texts: int = 24000
    replace: float = 0.2
    join: float = 0.5
    epochs: float = 0.0
    steps: int = 0
    minutes: float = 0.0
    batch: int = 32
    rate: float = 3e-4
    answers: float = 1.0
    chances: float = 0.0
    temperature: float = 2.0
    hidden: float = 0.0
    relations: float = 0.0
    likenesses: float = 0.0
    labels: float = 0.0
    words: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for option in NOT_NEGATIVE:
            if getattr(self, option) < 0:
                raise PassError(f"distill: {option}={getattr(self, option)} is negative; give 0 or more")
        for option in POSITIVE:
            if getattr(self, option) <= 0:
                raise PassError(f"distill: {option}={getattr(self, option)} is not above 0")
        for option in ("replace", "join"):
            if not 0 <= getattr(self, option) <= 1:
                raise PassError(f"distill: {option}={getattr(self, option)} is not a share from 0 to 1")
        if sum(bool(value) for value in (self.epochs, self.steps, self.minutes)) > 1:
            raise PassError("distill: epochs, steps and minutes each say how long; give one of them")
        if not any((self.answers, self.chances, self.hidden, self.relations, self.likenesses, self.labels)):
            raise PassError("distill: every loss has weight 0; nothing would be learnt")

    @property
    def measures(self) -> bool:
        return True

    def apply(self, model: Model, ctx: Context) -> Change:
        if importlib.util.find_spec("torch") is None:
            raise PassError("distill needs PyTorch, which is not installed: pip install 'onnxslim-bert[distill]'")
        from onnxslim_bert.rewriting.distillation.distil import DistillationPlan, distil
        from onnxslim_bert.rewriting.distillation.objective import Weights

        weights = Weights(
            self.answers,
            self.chances,
            self.temperature,
            self.hidden,
            self.relations,
            self.likenesses,
            self.labels,
        )
        epochs = self.epochs or 1.0
        plan = DistillationPlan(
            self.texts,
            self.batch,
            self.replace,
            self.join,
            epochs,
            self.steps,
            self.minutes,
            self.rate,
            self.words,
            self.seed,
        )
        done = distil(model, ctx.trials, weights, plan)
        return Change(done.trained.kept, done.note, done.details)
