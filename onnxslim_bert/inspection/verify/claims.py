"""Whether two models still answer as was recorded, as far as kernels of another CPU may differ.

Another CPU adds the products of floats in another order, and a float beside a rounding edge becomes the next integer.
So an int8 model moves its answers by a part of what rounding itself moved them. Read 16 rows at once instead of one, a
quantized MiniLM-L6 moved its logits on the 872 rows of SST-2's dev set by 1.0 % of their mean distance from the float
model's on average, and by 1.5 of that distance on the worst row (sst2-tiny: 0.6 % and 1.1). Hence the limits below,
which leave 6 of those rows to chance. Kernels that saturate, off by half of that distance on average, are beyond them.
"""

from collections.abc import Iterator

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.job.measured import Answers
from onnxslim_bert.proof.comparison import Comparison
from onnxslim_bert.proof.metrics import METRICS, score
from onnxslim_bert.proof.outputs import Outputs

FLOAT_NOISE = 1e-5  # of the largest answer: what the order of float32 sums changes
MEAN_NOISE = 0.1  # of the mean |difference|: what kernels change of the answers on average
ROW_NOISE = 2.0  # of the mean |difference|: what they change of one answer at most
TASK_NOISE = 1.0  # points: what kernels change of a metric made of many answers a row, or of cosines
PRINTED = 1e-6  # points, percent


def contradictions(
    claimed: Answers, seen: Comparison, base: Outputs, candidate: Outputs, labels: Array | None
) -> Iterator[str]:
    """What was recorded of a model and is not so now, a sentence each: both models answered the same rows again.

    claimed: the record. seen: the comparison of `base` and `candidate`, the outputs of both now. labels: [rows].
    """
    now = Answers.of(seen, claimed.provider)
    for name in ("rows", "output", "metric"):
        if getattr(claimed, name) != getattr(now, name):
            yield f"{name} {getattr(claimed, name)!r} recorded, {getattr(now, name)!r} found"
    floats = FLOAT_NOISE * float(np.abs(base.values).max())
    damage = now.mean_difference
    yield from _outside("mean |difference|", claimed.mean_difference, *_around(damage, floats + MEAN_NOISE * damage))
    unsure_base, unsure = _unsure(base, floats), _unsure(candidate, floats + ROW_NOISE * damage)
    if now.agreement is not None:
        room = 100 * float(np.mean(unsure_base | unsure))
        yield from _outside("agreement", claimed.agreement, *_around(now.agreement, room))
    if now.metric and base.kind not in ("classes", "score"):
        for whose, before, after in (("base", claimed.base, now.base), ("model", claimed.candidate, now.candidate)):
            yield from _outside(f"{now.metric} of the {whose}", before, *_around(after or 0.0, TASK_NOISE))
    elif now.metric and labels is not None:
        low, high = _scores(now.metric, base, labels, unsure_base, floats)
        yield from _outside(f"{now.metric} of the base", claimed.base, low, high)
        low, high = _scores(now.metric, candidate, labels, unsure, floats + MEAN_NOISE * damage)
        yield from _outside(f"{now.metric} of the model", claimed.candidate, low, high)


def _outside(name: str, recorded: float | None, low: float, high: float) -> Iterator[str]:
    if recorded is None or not low - PRINTED <= recorded <= high + PRINTED:
        found = f"{low:.5g}" if high - low <= PRINTED else f"{low:.5g} to {high:.5g}"
        yield f"{name} {'missing' if recorded is None else format(recorded, '.5g')} recorded, {found} found"


def _around(value: float, room: float) -> tuple[float, float]:
    return value - room, value + room


def _unsure(outputs: Outputs, noise: float) -> Array:
    """Rows whose class could change if each logit moved by at most `noise`; bool [rows]."""
    if outputs.kind != "classes":
        return np.zeros(len(outputs.values), np.bool_)
    ordered = np.sort(outputs.values, axis=1)
    unsure: Array = ordered[:, -1] - ordered[:, -2] <= 2 * noise
    return unsure


def _scores(metric: str, outputs: Outputs, labels: Array, unsure: Array, moved: float) -> tuple[float, float]:
    """The least and the most that the metric can be, in points.

    Of classes: with every unsure row wrong, and with every one right. Of scores that move by `moved`: a correlation is
    the cosine of centred vectors, and a vector that moves by a share of its length turns by no more than that.
    """
    found = outputs.predictions()
    value = score(METRICS[metric], found, labels)
    if outputs.kind == "score":
        length = float(np.std(found))
        return _around(value, 100 * moved / length if length else 0.0)
    wrong, right = np.where(unsure, np.where(labels == 0, 1, 0), found), np.where(unsure, labels, found)
    ends = [value, score(METRICS[metric], wrong, labels), score(METRICS[metric], right, labels)]
    return min(ends), max(ends)
