"""Distillation of a model that was cut from another: texts, teacher, losses and training put together."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.batches import Batch
from onnxslim_bert.errors import PassError
from onnxslim_bert.graph.signature import fixed_axes, flat_shape
from onnxslim_bert.model.dense import encoder_of
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.rewriting.distillation.choice import class_logits, longer_rather, surest
from onnxslim_bert.rewriting.distillation.enrich import enriched
from onnxslim_bert.rewriting.distillation.executor import Executor
from onnxslim_bert.rewriting.distillation.layers import layer_pairs, relation_pairs
from onnxslim_bert.rewriting.distillation.objective import (
    Objective,
    OutputWeights,
    Weights,
    check_weights,
    find_outputs,
)
from onnxslim_bert.rewriting.distillation.quantized_weights import quantized_weights
from onnxslim_bert.rewriting.distillation.teacher import Teacher
from onnxslim_bert.rewriting.distillation.texts import Row, Texts, padding_of, rows_of
from onnxslim_bert.rewriting.distillation.training import (
    Budget,
    Lessons,
    Trained,
    torch_threads,
    train,
)
from onnxslim_bert.rewriting.distillation.weights import trainable
from onnxslim_bert.rewriting.options import Weight
from onnxslim_bert.rewriting.trials import Trials

HELD_BACK = 0.1  # of the texts, at most MOST_HELD_BACK
MOST_HELD_BACK = 512
FEWEST = 16  # texts
POOL = 4  # times as many texts as are wanted are looked at, where there are so many
DESCRIBED = 8  # batches besides the held-back texts by which the teacher's answers are described


@dataclass(frozen=True)
class DistillationPlan:
    """How a student is trained: on how many texts, and for how long.

    texts: to train on in all. copies: the share of them that are enriched copies; more where there are too few texts.
    replace: the share of a copy's tokens that is replaced. join: the share of the copies that are two texts. batch:
    texts a step. balance: take the texts that the teacher answers surest, as many of each class. steps, minutes,
    epochs: the first that is given is the budget. words: train the word table too. quantized: train the integers and
    scales of a quantized student.
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
    seed: int


@dataclass(frozen=True)
class Distilled:
    """What came of a training.

    texts, copies: how many were trained on as they are, and with tokens replaced. hidden, relations: how many pairs
    of tensors inside were made alike. weights: of the losses of each output, by its name. left_out: losses that were
    given a weight, and for which the student has nothing of the teacher's sizes.
    """

    trained: Trained
    texts: int
    copies: int
    hidden: int
    relations: int
    weights: Mapping[str, OutputWeights]
    left_out: tuple[str, ...] = ()

    @property
    def note(self) -> str:
        """What was gained, in a line."""
        before, after, steps = self.trained.before, self.trained.after, self.trained.steps
        if not steps:
            return "the model answers as the one that it was made from"
        if not self.trained.kept:
            return (
                f"no weights answered held-back texts better in {steps} steps, and they were off by {before.error:.2%} "
                "of the teacher's variance before; `distill?` goes on without, and a lower rate may do better"
            )
        gained = f"held-back answers were off by {before.error:.2%} of the teacher's variance, now {after.error:.2%}"
        if not np.isnan(before.agreement):
            gained += f"; agreement {before.agreement:.1%}, now {after.agreement:.1%}"
        gained += f"; {steps} steps on {self.texts} texts and {self.copies} copies with replaced tokens"
        return gained + "".join(f"; no {loss}: nothing is as wide as the teacher's" for loss in self.left_out)

    @property
    def details(self) -> dict[str, Any]:
        """The same as numbers, for the report."""
        return {
            "texts": self.texts,
            "copies": self.copies,
            "steps": self.trained.steps,
            "kept": self.trained.kept,
            "loss": self.trained.loss,
            "errors": [self.trained.before.error, self.trained.after.error],
            "agreement": [
                None if np.isnan(judged.agreement) else judged.agreement
                for judged in (self.trained.before, self.trained.after)
            ],
            "hidden": self.hidden,
            "relations": self.relations,
            "torch": str(torch.__version__),
            "weights": {output: asdict(weights) for output, weights in self.weights.items()},
        }


def distil(student: Model, trials: Trials, weights: Weights, plan: DistillationPlan) -> Distilled:
    """Train `student` towards `trials.original`, on texts that are neither evaluated on nor judged by.

    Raises PassError for what cannot be trained.
    """
    teacher_model = trials.original
    material = gather(student, trials, plan)
    if weights.labels and material.labels is None:
        raise PassError(
            f"distill: labels={weights.labels} needs labels; the texts have none: name a --corpus with some"
        )
    if (weights.hidden or weights.relations) and encoder_of(student) is None:
        raise PassError("distill: hidden and relations compare layers, of which this student has none; leave them out")
    with torch_threads(trials.threads):
        quantized = quantized_weights(student) if plan.quantized else {}
        plain = [name for name in trainable(student, words=plan.words) if name not in quantized]
        executor = Executor(student, plain, quantized)
        layers = layer_pairs(student, teacher_model) if weights.hidden else []
        relations = relation_pairs(student, teacher_model) if weights.relations else []
        answers = [tensor.name for tensor in teacher_model.graph.outputs]
        inner = [theirs for _, theirs in (*layers, *relations)]
        judged_on, some = list(material.held_back.epoch()), list(islice(material.texts.epoch(), DESCRIBED))
        tensors = list(dict.fromkeys([*answers, *inner]))
        teacher = Teacher(teacher_model, tensors, [*judged_on, *some], threads=trials.threads)
        held_back, others = ([(batch, teacher.answer(batch)) for batch in part] for part in (judged_on, some))
        outputs = find_outputs(teacher_model, teacher.by_token, [*held_back, *others])
        check_weights(weights, outputs)
        objective = Objective(
            weights,
            outputs,
            _like_in_shape(executor, layers, *held_back[0]),
            list(_like_in_shape(executor, relations, *held_back[0], axes=2)),
            teacher_model.encoder.layers[-1].heads,
        )
        steps = plan.steps or max(round(plan.epochs * len(material.texts.rows) / plan.batch), 1)
        budget = Budget(steps, plan.minutes, plan.rate, plan.seed)
        lessons = Lessons(material.texts, held_back, material.labels if weights.labels else None)
        kept = trials.unfinished("distill", student, plan=asdict(plan), losses=asdict(weights), texts=material.sha256)
        trained = train(executor, teacher, objective, lessons, budget, trials.progress, kept)
    if trained.kept:
        for name, values in executor.trained().items():
            student.replace(name, values)
    copies = len(material.texts.rows) - material.own
    used = {output.name: weights.of(output) for output in objective.outputs}
    pairs = {"hidden": len(objective.hidden), "relations": len(objective.relations)}
    left_out = tuple(loss for loss, count in pairs.items() if getattr(weights, loss) and not count)
    return Distilled(trained, material.own, copies, **pairs, weights=used, left_out=left_out)


@dataclass(frozen=True)
class Material:
    """texts: to train on, the first `own` of them as they are and then enriched copies. labels: of the first texts."""

    texts: Texts
    own: int
    held_back: Texts
    labels: Array | None

    @property
    def sha256(self) -> str:
        """Over everything that is trained on and judged by."""
        hashed = hashlib.sha256(b"" if self.labels is None else self.labels.tobytes())
        for row in (*self.texts.rows, *self.held_back.rows):
            hashed.update(len(row.key).to_bytes(8, "little") + row.key)
        return hashed.hexdigest()


def gather(student: Model, trials: Trials, plan: DistillationPlan) -> Material:
    """The texts of the plan, no two alike, in the batches that `student` takes.

    Where there are more than wanted, longer ones are drawn more often, in proportion to their tokens: what is to be
    answered is mostly longer than the phrases that corpora like SST-2 are full of; with `plan.balance` by what the
    teacher answers instead (`surest`). Those held back are none of those
    trained on, and half of them are copies: a teacher is surer of texts that it was trained on than of others and of
    copies. Rows by which other passes judge what they choose (`trials.held_back`) are left out.
    """
    wanted = (round(plan.texts * (1 - plan.copies)) if plan.replace else plan.texts) + MOST_HELD_BACK
    sampled = trials.texts(POOL * wanted)
    batches = list(sampled.rows)
    order = np.concatenate([batch.rows for batch in batches])
    found = {row.key: (row, place) for row, place in zip(rows_of(batches), order, strict=True)}
    judged = {row.key for row in rows_of(trials.held_back)}
    every = [pair for key, pair in found.items() if key not in judged]
    if len(every) < FEWEST:
        raise PassError(
            f"distill: {len(every)} different texts to learn from; needed {FEWEST}: --corpus or more --rows"
        )
    rng = np.random.default_rng(plan.seed)
    if plan.balance:
        logits = dict(zip(order.tolist(), class_logits(trials.original, batches, trials.threads), strict=True))
        every = [every[i] for i in surest(np.array([logits[place] for _, place in every]), wanted)]
    elif len(every) > wanted:
        lengths = np.array([row.real.sum() for row, _ in every])
        every = [every[i] for i in longer_rather(lengths, wanted, rng)]
    every = [every[i] for i in rng.permutation(len(every))]
    count = min(round(HELD_BACK * len(every)), MOST_HELD_BACK)
    held, own = ([row for row, _ in part] for part in (every[:count], every[count:]))
    labels = None if sampled.labels is None else sampled.labels[[place for _, place in every[count:]]]
    copies = list[Row]()
    if plan.replace:
        copies = _copies(trials, own, max(plan.texts - len(own), 0), plan, rng)
        unseen = held[count // 2 :]
        held = held[: count // 2] + (_copies(trials, unseen, len(unseen), plan, rng) or unseen)

    padding = padding_of(batches)
    size, length = fixed_axes(flat_shape(tensor.shape or (), tensor.dtype) for tensor in student.graph.inputs)
    texts, held_back = (
        Texts(rows, padding, size or plan.batch, fixed=size is not None, length=length)
        for rows in ([*own, *copies], held)
    )
    return Material(texts, len(own), held_back, labels)


def _copies(trials: Trials, rows: list[Row], count: int, plan: DistillationPlan, rng: np.random.Generator) -> list[Row]:
    """So many enriched copies of `rows`; none where no input holds tokens, or nothing can be replaced."""
    model = trials.original
    embeddings = model.encoder.embeddings
    if embeddings.ids is None or embeddings.ids not in rows[0].feeds:
        return []
    table = None if embeddings.word is None else model.array(embeddings.word)
    if table is not None and embeddings.map is not None:
        table = table[model.array(embeddings.map)]
    return enriched(rows, count, embeddings.ids, plan.replace, plan.join, table, trials.protected_ids, rng)


def _like_in_shape(
    student: Executor,
    pairs: Sequence[tuple[str, str]],
    batch: Batch,
    theirs: Mapping[str, Array],
    axes: int = 3,
) -> dict[tuple[str, str], float]:
    """The pairs whose tensors have the same sizes along their first `axes`, with the variance of the teacher's."""
    ours = [values.shape for values in student.run(batch.feeds, [mine for mine, _ in pairs])] if pairs else []
    return {
        pair: float(theirs[pair[1]][batch.mask].var(0).mean())
        for pair, shape in zip(pairs, ours, strict=True)
        if shape[:axes] == theirs[pair[1]].shape[:axes]
    }
