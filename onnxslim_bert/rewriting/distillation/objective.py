"""What a student is trained towards: its losses, which follow from what the model answers."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.batches import Batch
from onnxslim_bert.errors import PassError
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.rewriting.distillation import losses
from onnxslim_bert.rewriting.distillation.layers import relation_heads
from onnxslim_bert.rewriting.options import Weight

OutputKind = Literal["classes", "score", "vector", "span"]
Answers = Sequence[tuple[Batch, Mapping[str, Array]]]
"""Batches, each with the teacher's answers."""


@dataclass(frozen=True)
class OutputWeights:
    """The weight of each loss of one output: see `Weights`."""

    answers: float
    chances: float = 0.0
    likenesses: float = 0.0


USUAL: Mapping[tuple[OutputKind, bool], OutputWeights] = {
    # Squared error of logits alone: Ba and Caruana 2014, https://arxiv.org/abs/1312.6184
    ("classes", False): OutputWeights(answers=1.0),
    ("score", False): OutputWeights(answers=1.0),
    ("score", True): OutputWeights(answers=1.0),
    # Of many tags, words or places one is answered. The squared error counts the others as much, chances do not:
    # Sanh et al. 2019, https://arxiv.org/abs/1910.01108
    ("classes", True): OutputWeights(answers=1.0, chances=1.0),
    ("span", True): OutputWeights(answers=1.0, chances=1.0),
    # Embeddings are compared by cosine: Reimers and Gurevych 2020, https://arxiv.org/abs/2004.09813, for the first loss
    ("vector", False): OutputWeights(answers=1.0, likenesses=1.0),
    ("vector", True): OutputWeights(answers=1.0, likenesses=1.0),
}
"""The weights that `auto` stands for, by what an output is and whether it has a value or row for each token."""


@dataclass(frozen=True)
class Weights:
    """The weight of each loss in the sum that a training makes small; 0 leaves a loss out.

    answers: squared error of the outputs. chances: divergence of classes' or places' chances at `temperature`. hidden:
    squared error of what each layer leaves. relations: of queries, keys and values. likenesses: of texts, for outputs
    that are vectors. labels: of the texts, where they have some. "auto" is the weight in `USUAL`.
    """

    answers: Weight = "auto"
    chances: Weight = "auto"
    temperature: float = 2.0
    hidden: float = 0.0
    relations: float = 0.0
    likenesses: Weight = "auto"
    labels: float = 0.0

    def of(self, output: "Output") -> OutputWeights:
        """Those of one output; 0 for a loss that it cannot have."""
        usual = USUAL[output.kind, output.by_token]
        given = {loss: getattr(self, loss) for loss in output.losses}
        return OutputWeights(
            **{"answers": 0.0} | {loss: getattr(usual, loss) if w == "auto" else w for loss, w in given.items()}
        )


@dataclass(frozen=True)
class Output:
    """One output of the model. by_token: a value or row for each token. spread: the teacher's variance of it."""

    name: str
    kind: OutputKind
    by_token: bool
    spread: float

    @property
    def losses(self) -> tuple[str, ...]:
        """The losses of `OutputWeights` that this output can have."""
        return {
            "classes": ("answers", "chances"),
            "span": ("answers", "chances"),
            "vector": ("answers", "likenesses"),
            "score": ("answers",),
        }[self.kind]


def find_outputs(model: Model, by_token: Collection[str], answered: Answers) -> list[Output]:
    """The float outputs of `model`, described by the teacher's answers to batches.

    by_token: outputs with a value or row for each token. Raises PassError when there are none, when they do not differ
    from text to text, and when all are one class.
    """
    first = answered[0][1]
    names = [t.name for t in model.graph.outputs if first[t.name].dtype.kind == "f" and first[t.name].ndim > 1]
    if not names:
        raise PassError("distill: the model has no float output with a row for each text; nothing can be learnt of it")
    word = model.encoder.embeddings.word
    words = 0 if word is None else len(model.array(word))
    widths = {name: first[name].shape[-1] for name in names}
    classes = {name for name, width in widths.items() if width < model.encoder.hidden or width == words}
    return [_described(name, name in by_token, name in classes, answered) for name in names]


def _described(name: str, by_token: bool, classes: bool, answered: Answers) -> Output:
    """classes: it has fewer columns than the encoder, or one for each word: no vector."""
    first = answered[0][1][name]
    kind: OutputKind = "vector"
    if by_token and first.ndim == 2:
        kind = "span"
    elif classes:
        kind = "classes" if first.shape[-1] > 1 else "score"
    real = [given[name][batch.mask] if by_token else given[name] for batch, given in answered]
    rows = np.concatenate([values.reshape(-1, values.shape[-1] if kind != "span" else 1) for values in real])
    output = Output(name, kind, by_token, float(rows.var(0).mean()))
    if output.spread <= 1e-10 * float(np.square(rows).mean()):
        raise PassError(f"distill: the teacher's {name!r} is the same for all {len(rows)} rows; nothing can be learnt")
    if kind == "classes" and len(set(rows.argmax(1).tolist())) == 1:
        raise PassError(
            f"distill: the teacher answers class {rows[0].argmax()} in all {len(rows)} rows of {name!r}; needed texts "
            "that it tells apart"
        )
    return output


def check_weights(weights: Weights, outputs: Sequence[Output]) -> None:
    """Raise PassError for a loss with a weight that no output can have, and a temperature where nothing is softened."""
    if weights.temperature != Weights.temperature and not any(weights.of(output).chances for output in outputs):
        raise PassError(
            f"distill: temperature={weights.temperature:g} softens chances, which have no weight here; "
            "give chances=1 for classes, or leave it out"
        )
    for loss in ("chances", "likenesses"):
        weight = getattr(weights, loss)
        if weight not in ("auto", 0) and not any(loss in output.losses for output in outputs):
            what = ", ".join(f"{output.name!r} of the kind {output.kind}" for output in outputs)
            raise PassError(f"distill: {loss}={weight:g} is no loss of this model's outputs: {what}; leave it out")


class Objective:
    """The sum of the losses of a student, for the batches on which both have answered."""

    def __init__(
        self,
        weights: Weights,
        outputs: Sequence[Output],
        hidden: Mapping[tuple[str, str], float],
        relations: Sequence[tuple[str, str]],
        heads: int,
    ) -> None:
        """hidden, relations: names of tensors that are to be alike, the student's and the teacher's; hidden ones with
        the teacher's variance. heads: into which relations are cut at most.
        """
        self.weights, self.outputs, self.hidden, self.relations = weights, outputs, hidden, relations
        self._heads = heads
        inner = [ours for ours, _ in (*hidden, *relations)]
        self.student_tensors = list(dict.fromkeys([*(output.name for output in outputs), *inner]))

    def loss(
        self, ours: Mapping[str, Tensor], theirs: Mapping[str, Array], batch: Batch, labels: Array | None = None
    ) -> Tensor:
        """The weighted sum over one batch. labels: of the first texts, by `Batch.rows`; the others have none."""
        real, weights = torch.from_numpy(batch.mask), self.weights
        given = {name: torch.from_numpy(values) for name, values in theirs.items()}
        total = torch.zeros(())
        for output in self.outputs:
            total = total + self._of_output(output, ours[output.name], given[output.name], real)
        for (mine, other), spread in self.hidden.items():
            error = losses.squared_error(ours[mine][real], given[other][real], spread)
            total = total + weights.hidden / len(self.hidden) * error
        for mine, other in self.relations:
            heads = relation_heads((ours[mine].shape[-1], given[other].shape[-1]), self._heads)
            apart = losses.relations(ours[mine], given[other], real, heads)
            total = total + weights.relations / len(self.relations) * apart
        if labels is not None and (known := batch.rows < len(labels)).any():
            logits = ours[self.outputs[0].name][torch.from_numpy(known)]
            total = total + weights.labels * losses.labelled(logits, torch.from_numpy(labels[batch.rows[known]]))
        return total

    def _of_output(self, output: Output, ours: Tensor, theirs: Tensor, real: Tensor) -> Tensor:
        weights, vectors = self.weights.of(output), (ours, theirs)
        if output.by_token and output.kind == "vector":
            vectors = losses.mean_vectors(ours, real), losses.mean_vectors(theirs, real)
        logits = (ours.masked_fill(~real, -1e4), theirs.masked_fill(~real, -1e4)) if output.kind == "span" else None
        if output.by_token:
            ours, theirs = ours[real], theirs[real]
        total = weights.answers * losses.squared_error(ours, theirs, output.spread)
        if weights.chances:
            total = total + weights.chances * losses.divergence(*(logits or (ours, theirs)), self.weights.temperature)
        if weights.likenesses:
            total = total + weights.likenesses * losses.likenesses(*vectors)
        return total
