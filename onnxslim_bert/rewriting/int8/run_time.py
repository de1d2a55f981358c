"""Choose which inputs of dense layers get the range that they have at run time, where one found before is worse."""

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.collect import real_rows
from onnxslim_bert.calibration.hard_rows import SHORT
from onnxslim_bert.graph.sessions import run_in_turn
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.session import model_session
from onnxslim_bert.rewriting.answers import by_row
from onnxslim_bert.rewriting.int8.quantizers import UNSIGNED_LEVELS, Quantizer, activation_quantizer
from onnxslim_bert.rewriting.trials import Trials

SHARES = (0.0, 0.125, 0.25, 0.5, 0.75, 1.0)  # of the inputs that get their range at run time, tried in this order


@dataclass(frozen=True)
class RunTime:
    """Which inputs get their range at run time, and what that was measured by.

    inputs: their numbers, ascending. error: `Trials.error_a_row` with them; fixed: with none of them; dynamic: of the
    original with every range found at run time and nothing smoothed. as_good: whether rows are as near to the original
    with `inputs` as they are with every range from run time, and not by chance; where not even all inputs reach that,
    it is false.
    """

    inputs: tuple[int, ...]
    error: float
    fixed: float
    dynamic: float
    as_good: bool

    def __str__(self) -> str:
        """What was measured, in one clause."""
        fixed, dynamic, error = (f"{100 * value:.2g} %" for value in (self.fixed, self.dynamic, self.error))
        if not self.inputs:
            return f"off by {fixed} on hard rows, by {dynamic} with ranges found at run time"
        return f"off by {error} on hard rows; by {fixed} with every range calibrated, by {dynamic} with none"


def choose_run_time(
    count: int,
    order: Callable[[], Sequence[int]],
    made: Callable[[tuple[int, ...]], Model],
    dynamic: Callable[[], Model],
    trials: Trials,
    fixed: Array | None = None,
) -> RunTime:
    """The fewest inputs, of the SHARES tried, with which rows are as near to the original as those of `dynamic`.

    Where not even all of them reach that, the share with the least error. count: of the inputs. order: finds them in
    the order of their gain, the largest first; asked only where calibrated ranges alone are not as good. made: the
    quantized model in which given inputs have their range from run time. dynamic: makes the one with all of them so.
    """
    limit, groups = trials.row_errors(dynamic()), _groups(trials)
    tried: dict[tuple[int, ...], Array] = {} if fixed is None else {(): fixed}
    for share in SHARES:
        gc.collect()  # a graph's nodes and tensors refer to each other
        inputs = tuple(sorted(order()[: int(np.ceil(share * count))])) if share else ()
        if inputs not in tried:
            tried[inputs] = trials.row_errors(made(inputs))
            trials.progress("choosing ranges", len(tried), len(SHARES))
        if good := _as_good(tried[inputs], limit, groups):
            break
    best = inputs if good else min(tried, key=lambda one: float(tried[one].mean()))
    error, calibrated, free = (float(np.sqrt(errors.mean())) for errors in (tried[best], tried[()], limit))
    return RunTime(best, error, calibrated, free, good)


def _as_good(errors: Array, limit: Array, groups: Sequence[Array]) -> bool:
    """Whether rows of these errors are as good as those of `limit`: in each group on average, and the worst of it.

    On average, by a standard error of the mean difference at least: what is better by less is not on other rows.
    """
    return all(_is_gain((limit - errors)[group]) and errors[group].max() <= limit[group].max() for group in groups)


def _is_gain(gains: Array) -> bool:
    """Whether the mean of `gains`, [rows], is no less than its standard error. Example: [1, 0, -1] is none."""
    return bool(gains.mean() >= gains.std() / np.sqrt(len(gains)))


def _groups(trials: Trials) -> list[Array]:
    """The held-back rows in groups, bool [rows] each: behind padding, short, and others; errors differ between them."""
    masks = [batch.mask for batch in (*trials.held_back, *trials.hard[1])]
    behind = np.concatenate([~mask[:, 0] for mask in masks])
    short = np.concatenate([mask.sum(1) for mask in masks]) <= max(SHORT)
    return [group for group in (behind, short & ~behind, ~short & ~behind) if group.any()]


def excess(model: Model, quantizers: Mapping[str, Quantizer], trials: Trials) -> dict[str, float]:
    """How much worse the worst held-back row is off with a fixed range than with one of its batch, for each tensor.

    quantizers: by tensor, the scale and the zero point of the fixed range. Errors are those of the tensor itself, mean
    squares as a share of its own mean square over all rows. Example: an input of which one row is clipped to half has
    0.25 or more, one that is never clipped less than 0.001.
    """
    session = model_session(model, list(quantizers), threads=trials.threads)  # all inputs are held: no packed weights
    errors: dict[str, list[Array]] = {name: [] for name in quantizers}
    sizes = dict.fromkeys(quantizers, 0.0)
    for batch in (batch for batch in (*trials.held_back, *trials.hard[1]) if batch.mask.any()):
        for name, values in run_in_turn(session, batch.feeds):
            rows = real_rows(values, batch.mask)
            fixed, free = (by_row(_rounded(rows, q) - rows, batch) for q in (quantizers[name], _of_batch(rows)))
            errors[name].append(fixed - free)
            sizes[name] += float(by_row(rows, batch).sum())
    count = sum(len(one) for one in errors[next(iter(errors))])
    return {
        name: float(np.concatenate(found).max()) * count / max(sizes[name], 1e-30) for name, found in errors.items()
    }


def _of_batch(rows: Array) -> Quantizer:
    return activation_quantizer(min(float(rows.min()), 0.0), max(float(rows.max()), 0.0))


def _rounded(rows: Array, quantizer: Quantizer) -> Array:
    scale, zero = quantizer[0], float(quantizer[1])
    return np.asarray(np.clip(np.rint(rows / scale), -zero, UNSIGNED_LEVELS - zero) * scale)
