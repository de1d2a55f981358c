"""The training itself: steps of AdamW, judged on texts that are held back, of which the best weights are kept."""

import math
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count, islice

import numpy as np
import torch

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.batches import Batch
from onnxslim_bert.errors import PassError
from onnxslim_bert.progress import Progress
from onnxslim_bert.rewriting.distillation.bfloat16 import products_in_bfloat16
from onnxslim_bert.rewriting.distillation.executor import Executor
from onnxslim_bert.rewriting.distillation.objective import Answers, Objective
from onnxslim_bert.rewriting.distillation.teacher import Teacher
from onnxslim_bert.rewriting.distillation.texts import Texts
from onnxslim_bert.rewriting.distillation.unfinished import moments_of, take_up
from onnxslim_bert.rewriting.options import Weight
from onnxslim_bert.rewriting.trials import Unfinished

FARTHEST_RATE = 3e-4  # of AdamW, for students whose answers are off by a third of the teacher's variance or more
NEARER_RATE = 5e-4  # times the square root of that share, for others
WARM_UP = 0.06  # of the budget, while the rate rises
JUDGED = 20  # times at most; as many steps lie between as judging takes batches, which makes it a quarter of the time
PATIENCE = 10  # judgements in a row that bring nothing better; the rate falls to nothing in 20
LARGEST_GRADIENT = 1.0  # its norm; larger ones are scaled down
NEAR = 0.01  # of the teacher's variance: of a smaller error, products in bfloat16 would hide a part
EQUAL = 1e-8  # of the teacher's variance: a student this near has nothing to learn
LOST = 4.0  # of the teacher's variance: worse than the mean of its answers would be


@dataclass(frozen=True)
class Budget:
    """steps: of the optimizer; minutes: instead, of the clock. rate: AdamW's, at its highest, or by `usual_rate`. seed:
    of all orders.
    """

    steps: int
    minutes: float
    rate: Weight
    seed: int

    def used(self, step: int, started: float) -> float:
        """The share of the budget that is gone."""
        return (time.monotonic() - started) / (60 * self.minutes) if self.minutes else step / self.steps


@dataclass(frozen=True)
class Judged:
    """error: squared, of the answers to held-back texts, as a share of the teacher's variance. agreement: share of the
    texts or tokens that are given the teacher's class; NaN without classes.
    """

    error: float
    agreement: float


@dataclass(frozen=True)
class Trained:
    """steps: that were done; kept: the one whose weights are kept. before, after: on held-back texts. loss: the mean
    over the last tenth of the steps.
    """

    steps: int
    kept: int
    before: Judged
    after: Judged
    loss: float


@dataclass(frozen=True)
class Lessons:
    """texts: to train on. held_back: others, with the teacher's answers. labels: of the first texts; or None."""

    texts: Texts
    held_back: Answers
    labels: Array | None = None


def train(
    student: Executor,
    teacher: Teacher,
    objective: Objective,
    lessons: Lessons,
    budget: Budget,
    progress: Progress,
    unfinished: Unfinished | None = None,
) -> Trained:
    """Move the parameters of `student` to where it answers held-back texts best.

    unfinished: keeps the state at each judgement, and in the end the best weights; a training of which it holds one
    goes on from there, and one that had ended is not done again. Raises PassError when a loss is not finite, or
    held-back answers become worse than the mean of the teacher's would be.
    """
    run = _Run(student, judge(student, objective, lessons.held_back))
    before = run.judged
    if before.error <= EQUAL:
        return Trained(0, 0, before, before, 0.0)
    if unfinished is not None and (state := unfinished.load()) is not None:
        run.take_up(state)
        if run.ended(budget):
            return run.result(before)
    started, recent = time.monotonic() - run.seconds, run.recent
    peak = usual_rate(before.error) if budget.rate == "auto" else budget.rate
    teacher.exact = before.error < NEAR
    batches = _endless(lessons.texts, budget.seed)
    for batch in islice(batches, run.step):  # answers differ in their last bit from batch to batch
        if teacher.has_room:
            teacher.remember(batch)
    for step, batch in enumerate(batches, start=run.step + 1):
        for group in run.optimizer.param_groups:
            group["lr"] = rate_at(budget.used(step - 1, started), peak)
        loss = _step(student, teacher, objective, batch, lessons.labels, run.optimizer)
        if not np.isfinite(loss):
            raise PassError(f"distill: the loss is {loss} at step {step}; a lower rate than {peak:.3g} may hold")
        recent.append(loss)
        used = budget.used(step, started)
        if used < 1 and (used * JUDGED < run.judgements + 1 or step - run.step < len(lessons.held_back)):
            continue
        run.judgements = int(used * JUDGED)
        now = judge(student, objective, lessons.held_back)
        if not now.error <= max(LOST, 2 * before.error):
            raise PassError(
                f"distill: diverged: at step {step} held-back answers are off by {now.error:.3g} of the teacher's "
                f"variance, {before.error:.3g} before; a lower rate than {peak:.3g} may hold"
            )
        run.see(step, now, time.monotonic() - started)
        rows = step * lessons.texts.batch / run.seconds
        progress(_said(float(np.mean(recent)), now, rows), min(int(1000 * used), 1000), 1000)
        if unfinished is not None:
            unfinished.keep(run.state(budget))
        if run.ended(budget):
            break
    return run.result(before)


class _Run:
    """How far a training is, and the weights that answered held-back texts best.

    step: the last one that was judged; seconds: spent until then; judgements: how many there were. recent: the latest
    losses. best, judged: the step with the best weights, and how they were judged; worse: how many judgements in a row
    found others.
    """

    def __init__(self, student: Executor, judged: Judged) -> None:
        self._parameters = list(student.parameters.values())
        self.optimizer = torch.optim.AdamW(self._parameters, lr=0.0, fused=True)
        self.step, self.seconds, self.judgements = 0, 0.0, 0
        self.recent = deque[float](maxlen=50)
        self._weights = [torch.empty_like(parameter, requires_grad=False) for parameter in self._parameters]
        self._keep(0, judged)

    def see(self, step: int, judged: Judged, seconds: float) -> None:
        """Take note of how the weights are now, after `step` and so many seconds."""
        self.step, self.seconds = step, seconds
        self.worse += 1
        if judged.error < self.judged.error:
            self._keep(step, judged)

    def ended(self, budget: Budget) -> bool:
        """Whether the budget is used up, or nothing more is to be gained."""
        used = self.seconds / (60 * budget.minutes) if budget.minutes else self.step / budget.steps
        return used >= 1 or self.worse == PATIENCE

    def result(self, before: Judged) -> Trained:
        """Give the student the best weights back."""
        with torch.no_grad():
            for parameter, values in zip(self._parameters, self._weights, strict=True):
                parameter.copy_(values)
        return Trained(self.step, self.best, before, self.judged, float(np.mean(self.recent)))

    def state(self, budget: Budget) -> dict[str, Array]:
        """Everything that the rest of the training follows from; of one that has ended, what it came to.

        Views of what the next step changes, as copies would be as large as the training itself.
        """
        counts = [self.step, self.judgements, self.best, self.worse]
        numbers = [self.seconds, self.judged.error, self.judged.agreement]
        best = {f"best/{i}": values.numpy() for i, values in enumerate(self._weights)}
        moving = {} if self.ended(budget) else moments_of(self.optimizer)
        told = {"counts": np.array(counts), "numbers": np.array(numbers), "recent": np.array(self.recent)}
        return moving | told | best

    def take_up(self, state: Mapping[str, Array]) -> None:
        """Go on from what `state` has returned."""
        if "parameter/0" in state:
            take_up(self.optimizer, state)
        self.step, self.judgements, self.best, self.worse = map(int, state["counts"])
        self.seconds, error, agreement = map(float, state["numbers"])
        self.judged = Judged(error, agreement)
        self.recent.extend(map(float, state["recent"]))
        self._weights = [torch.from_numpy(np.array(state[f"best/{i}"])) for i in range(len(self._parameters))]

    def _keep(self, step: int, judged: Judged) -> None:
        self.best, self.judged, self.worse = step, judged, 0
        for kept, parameter in zip(self._weights, self._parameters, strict=True):
            kept.copy_(parameter.detach())


def usual_rate(error: float) -> float:
    """AdamW's highest rate for a student whose answers are off by the share `error` of the teacher's variance.

    A step moves each weight by about the rate, and the error is the square of a distance: the rate that brings a
    student near that is far away would move another, near already, away. Example: 1.3e-4 for 0.065.
    """
    return min(NEARER_RATE * math.sqrt(error), FARTHEST_RATE)


def rate_at(used: float, peak: float) -> float:
    """The rate when the share `used` of the budget is gone: it rises to `peak` and then falls to nothing, linearly."""
    return peak * max(min(used / WARM_UP, (1 - used) / (1 - WARM_UP)), 0.0)


def judge(student: Executor, objective: Objective, held_back: Answers) -> Judged:
    """How the student answers held-back texts."""
    squares, values, same, classes = 0.0, 0, 0, 0
    for batch, theirs in held_back:
        with torch.no_grad():
            ours = student.run(batch.feeds, [output.name for output in objective.outputs])
        for output, given in zip(objective.outputs, ours, strict=True):
            mine, other = (x[batch.mask] if output.by_token else x for x in (given.numpy(), theirs[output.name]))
            squares += float(np.square(mine - other).sum(dtype=np.float64)) / output.spread
            values += mine.size
            if output.kind == "classes":
                same += int((mine.argmax(-1) == other.argmax(-1)).sum())
                classes += mine.size // mine.shape[-1]
    return Judged(squares / values, same / classes if classes else float("nan"))


def _step(
    student: Executor,
    teacher: Teacher,
    objective: Objective,
    batch: Batch,
    labels: Array | None,
    optimizer: torch.optim.Optimizer,
) -> float:
    """One step on one batch; its loss."""
    theirs = teacher.remember(batch)
    with products_in_bfloat16(wanted=not teacher.exact):
        ours = student.run(batch.feeds, objective.student_tensors)
    loss = objective.loss(dict(zip(objective.student_tensors, ours, strict=True)), theirs, batch, labels)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(student.parameters.values(), LARGEST_GRADIENT)
    optimizer.step()
    return float(loss.detach())


def _endless(texts: Texts, seed: int) -> Iterator[Batch]:
    for epoch in count():
        yield from texts.epoch(np.random.default_rng([seed, epoch]))


def _said(loss: float, now: Judged, rows: float) -> str:
    agreement = "" if np.isnan(now.agreement) else f", agreement {now.agreement:.1%}"
    return f"distilling: loss {loss:.3g}, held-back error {now.error:.3g}{agreement}, {rows:.0f} rows/s"
