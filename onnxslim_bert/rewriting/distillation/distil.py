"""Distillation of a model that was cut from another: texts, teacher, losses and training put together."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.batches import Batch
from onnxslim_bert.errors import PassError
from onnxslim_bert.model.dense import encoder_of
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.rewriting.distillation.executor import Executor
from onnxslim_bert.rewriting.distillation.layer_fitting import fit_layers
from onnxslim_bert.rewriting.distillation.layers import layer_pairs, relation_pairs
from onnxslim_bert.rewriting.distillation.material import Material, gather
from onnxslim_bert.rewriting.distillation.objective import (
    Objective,
    OutputWeights,
    Weights,
    check_weights,
    find_outputs,
)
from onnxslim_bert.rewriting.distillation.plan import DistillationPlan
from onnxslim_bert.rewriting.distillation.quantized_weights import quantized_weights
from onnxslim_bert.rewriting.distillation.teacher import Teacher
from onnxslim_bert.rewriting.distillation.torch_threads import torch_threads
from onnxslim_bert.rewriting.distillation.training import EQUAL, Budget, Lessons, Trained, judge, train
from onnxslim_bert.rewriting.distillation.weights import trainable
from onnxslim_bert.rewriting.trials import Trials

DESCRIBED = 8  # batches besides the held-back texts by which the teacher's answers are described


@dataclass(frozen=True)
class Distilled:
    """What came of a training.

    texts, copies: how many were trained on as they are, and with tokens replaced. hidden, relations: how many pairs
    of tensors inside were made alike. fitted: how many weights were trained layer by layer and are kept. weights: of
    the losses of each output, by its name. left_out: losses that were given a weight, and for which the student has
    nothing of the teacher's sizes.
    """

    trained: Trained
    texts: int
    copies: int
    hidden: int
    relations: int
    fitted: int
    weights: Mapping[str, OutputWeights]
    left_out: tuple[str, ...] = ()

    @property
    def changes(self) -> int:
        """How much was done to the model; 0 where it stays as it was."""
        return self.trained.kept + self.fitted

    @property
    def note(self) -> str:
        """What was gained, in a line."""
        before, after, steps = self.trained.before, self.trained.after, self.trained.steps
        if not steps and not self.fitted:
            return "the model answers as the one that it was made from"
        if not self.changes:
            return (
                f"no weights answered held-back texts better in {steps} steps, and they were off by {before.error:.2%} "
                "of the teacher's variance before; `distill?` goes on without, and a lower rate may do better"
            )
        gained = f"held-back answers were off by {before.error:.2%} of the teacher's variance, now {after.error:.2%}"
        if not np.isnan(before.agreement):
            gained += f"; agreement {before.agreement:.1%}, now {after.agreement:.1%}"
        gained += "; layer by layer first" if self.fitted else ""
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
            "fitted": self.fitted,
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
        untrained = judge(executor, objective, held_back) if plan.layer_epochs else None
        first: dict[str, Array] = {}
        if untrained is not None and untrained.error > EQUAL:
            fitted = _fitted(student, trials, material, plan)
            first = {name: student.array(name) for name in fitted}
            _write(student, fitted)
            scales = {name: make for name, make in quantized_weights(student).items() if _is_float(student, name)}
            executor = Executor(student, plain, scales)
        kept = trials.unfinished("distill", student, plan=asdict(plan), losses=asdict(weights), texts=material.sha256)
        trained = train(executor, teacher, objective, lessons, budget, trials.progress, kept)
        trained = trained if untrained is None else replace(trained, before=untrained)
    better = trained.after.error < trained.before.error
    _write(student, executor.trained() if better else first)
    copies = len(material.texts.rows) - material.own
    used = {output.name: weights.of(output) for output in objective.outputs}
    pairs = {"hidden": len(objective.hidden), "relations": len(objective.relations)}
    left_out = tuple(loss for loss, count in pairs.items() if getattr(weights, loss) and not count)
    kept_layers = len(first) if better else 0
    return Distilled(trained, material.own, copies, **pairs, fitted=kept_layers, weights=used, left_out=left_out)


def _fitted(student: Model, trials: Trials, material: Material, plan: DistillationPlan) -> dict[str, Array]:
    """`fit_layers`, or what it came to in a run that was interrupted behind it."""
    kept = trials.unfinished("fitted layers", student, plan=asdict(plan), texts=material.sha256)
    found = None if kept is None else kept.load()
    if found is None:
        found = fit_layers(student, trials.original, material.texts, plan, trials.progress)
        if kept is not None:
            kept.keep(found)
    return found


def _write(student: Model, values: Mapping[str, Array]) -> None:
    for name, array in values.items():
        student.replace(name, array)


def _is_float(model: Model, name: str) -> bool:
    return model.array(name).dtype.kind == "f"


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
