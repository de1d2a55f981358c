"""Whether a mask hides tokens, and whether positions place them: proven by running the model on made-up texts."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.graph.signature import fixed_axes, flat_shape
from onnxslim_bert.model.role_names import FORMS, InputRole, Roles, role_of

MOST_TYPES = 16  # rows of a table of token types, at most
PROBE_LENGTH = 8  # tokens of a probe, where the graph leaves the length open
HIDDEN = 0.2  # share of what seen tokens change that hidden ones may: dynamic int8 rounds all tokens by one scale
EXACT = 1e-3  # the same, where a name says what the mask is and the two texts cannot share their scale

Run = Callable[[Mapping[str, Array]], list[Array] | None]  # a model's outputs; None where it does not run


class Input(NamedTuple):
    """One input, as the graph declares it. shape: sizes, or names of open axes; None when it declares none."""

    dtype: np.dtype[Any]
    shape: tuple[int | str, ...] | None


class RoleProbe:
    """Runs the model on two texts that differ in their last tokens only: a mask that hides these keeps the answers.

    Both texts are rows of one batch where the graph allows it: int8 with ranges from run time then rounds both alike.
    """

    def __init__(self, inputs: Mapping[str, Input], rows: Mapping[str, int], roles: Roles, ids: str, run: Run) -> None:
        fixed = fixed_axes(flat_shape(given.shape, given.dtype) for given in inputs.values() if given.shape is not None)
        self._inputs, self._roles, self._run = inputs, roles, run
        batch, length = fixed[0] or 2, fixed[1] or PROBE_LENGTH
        self._shape, self._together = (batch, length), batch > 1
        self._real = np.arange(length) < max(1, length - max(1, length // 3))
        most = max(4, min(rows.get(ids, MOST_TYPES), 1000))
        low = 4 if most >= 2 * MOST_TYPES else 1
        middle = (low + most) // 2
        rng = np.random.default_rng(0)
        shared, one, other = (rng.integers(*ends, length) for ends in ((low, most), (low, middle), (middle, most)))
        self._texts = [np.where(self._real, shared, hidden) for hidden in (one, other)]
        self._other = np.where(self._real, other, one)

    def form(self, name: str) -> InputRole | None:
        """How the mask `name` is written: what hides tokens best; None when no values are proven to hide them.

        What hides the real tokens, too, is no way to write it. Where hidden tokens still have a small part in the
        answers (int8 rounds all by one scale, a pooling reads padding), that part must also be far below the one that
        they have when the same values say the opposite.
        """
        forms = FORMS if self._inputs[name].dtype.kind == "f" else FORMS[:2]
        changes = {form: self._change(name, form) for form in forms if self._reads(name, form)}
        moved = [self._change(name, InputRole("mask", value, value)) for value in (1, 0)]
        ran = {form: change for form, change in changes.items() if change is not None}
        most = max([change for change in [*moved, *ran.values()] if change is not None], default=0.0)
        best = min(ran, key=lambda form: ran[form], default=None)
        if best is None or not most:
            return None
        if ran[best] > EXACT * most:
            opposite = self._change(name, InputRole("mask", best.padding, best.real)) or 0.0
            allowed = HIDDEN if self._together or role_of(name) != "mask" else EXACT
            return best if ran[best] <= allowed * min(most, opposite) else None
        return best

    def ignores(self, name: str) -> bool:
        """Whether the answers are the same whatever `name` holds."""
        answers = [self._answers(name, form) for form in (FORMS[0], FORMS[1])]
        return all(each is not None for each in answers) and all(
            _apart(*pair) == 0 for pair in zip(answers[0] or [], answers[1] or [], strict=True)
        )

    def places(self, name: str) -> bool:
        """Whether `name` holds the positions of tokens, and nothing else does: tokens that change places with their
        positions change places in the answers, and those that leave them behind change the answers."""
        length = self._shape[1]
        order = np.r_[0, length - 1 : 0 : -1]  # the first token stays: a classifier reads it
        here, there = np.arange(length), order
        runs = [
            self._run(self._feeds(text) | {name: self._filled(name, places)})
            for text, places in ((self._texts[0], here), (self._texts[0][order], there), (self._texts[0][order], here))
        ]
        if any(run is None for run in runs):
            return False
        first, moved, left = ([x for x in run or [] if _is_vector(x)] for run in runs)
        expected = [x[:, order] if x.shape[:2] == self._shape else x for x in first]
        return _apart(expected, moved) <= EXACT < _apart(expected, left)

    def _change(self, name: str, form: InputRole) -> float | None:
        """How far the answers of real tokens move when the others' ids change; None where the model does not run."""
        answers = self._answers(name, form)
        return None if answers is None else _apart(*answers)

    def _reads(self, name: str, form: InputRole) -> bool:
        """Whether the answers of real tokens move with these tokens' ids."""
        answers = self._answers(name, form, [self._texts[0], self._other])
        return answers is not None and _apart(*answers) > 0

    def _answers(self, name: str, form: InputRole, texts: list[Array] | None = None) -> list[list[Array]] | None:
        """The outputs for the first text and for the second; None where the model does not run."""
        texts = texts or self._texts
        if not self._together:
            runs = [self._outputs(text[None], name, form) for text in texts]
            return None if runs[0] is None or runs[1] is None else [runs[0], runs[1]]
        ids = np.stack(texts)[np.arange(self._shape[0]) % 2]
        outputs = self._outputs(ids, name, form)
        return None if outputs is None else [[_of_row(each, row, *self._shape) for each in outputs] for row in (0, 1)]

    def _outputs(self, ids: Array, name: str, form: InputRole) -> list[Array] | None:
        filled = self._filled(name, np.where(self._real, form.real, form.padding))
        outputs = self._run(self._feeds(ids) | {name: filled})
        return None if outputs is None else [self._of_real(each) for each in outputs if _is_vector(each)]

    def _feeds(self, ids: Array) -> dict[str, Array]:
        """Rows of tokens `ids` [seq] or [batch, seq], none of which is hidden."""
        feeds = {other: np.ones(self._shape).astype(given.dtype) for other, given in self._inputs.items()}
        real = np.ones(self._shape, bool)
        for name, each in self._roles.items():
            made = {"ids": ids, "types": np.zeros(self._shape)}
            feeds[name] = self._filled(name, made.get(each.role, each.written(real)))
        return feeds

    def _filled(self, name: str, values: Array) -> Array:
        """`values` for each row of the batch, in the type of the input `name`."""
        return np.broadcast_to(values, self._shape).astype(self._inputs[name].dtype)

    def _of_real(self, output: Array) -> Array:
        """The part of `output` that is about real tokens, where it holds an answer for each token; else all of it."""
        return output[:, self._real] if output.ndim > 1 and output.shape[1] == self._shape[1] else output


def _of_row(output: Array, row: int, batch: int, length: int) -> Array:
    """What `output` says of a row of the batch, whose axis comes first, or second behind one of `length` tokens."""
    if output.ndim > 1 and output.shape[:2] == (length, batch) != (batch, length):
        return output[:, row]
    each = output.shape[0] // batch  # several, where the tokens of all rows stand in one axis
    return output[row * each : (row + 1) * each]


def _is_vector(output: Array) -> bool:
    return output.dtype.kind == "f" and output.ndim in (1, 2, 3)


def _apart(first: list[Array], second: list[Array]) -> float:
    """The largest difference, relative to the largest value of its output."""
    pairs = [
        (np.nan_to_num(a.astype(np.float64)), np.nan_to_num(b.astype(np.float64)))
        for a, b in zip(first, second, strict=True)
    ]
    return max((float(np.abs(a - b).max() / (np.abs(a).max() + 1e-9)) for a, b in pairs if a.size), default=0.0)
