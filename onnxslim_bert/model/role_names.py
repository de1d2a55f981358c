"""The roles that inputs of a model have (token ids, mask, token types, positions), and what names say of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.errors import DataError

Role = Literal["ids", "mask", "types", "positions"]
Named = Mapping[Role, str]  # the inputs that a user names, by role
NAMES = "ids=NAME,mask=NAME,types=NAME,positions=NAME"  # as a user writes them

# Parts of names as exporters write them; the first role with a part in the name counts.
MARKS: dict[Role, tuple[str, ...]] = {
    "mask": ("mask",),
    "types": ("type", "segment"),
    "positions": ("position",),
    "ids": ("input_ids", "input_word_ids", "input.1", "token_ids", "tokens"),
}
ORDER: tuple[Role, ...] = ("ids", "mask", "types", "positions")


@dataclass(frozen=True)
class InputRole:
    """The role of one input [batch, seq].

    real, padding: the values that a mask has at tokens and at padding; the positions of a row's first token and of
    padding.
    """

    role: Role
    real: float = 1
    padding: float = 0

    def is_real(self, mask: Array) -> Array:
        """Where a mask that is written so has tokens, bool of its shape."""
        values = mask.astype(np.float64)
        nearer: Array = np.abs(values - self.real) < np.abs(values - self.padding)
        return nearer

    def written(self, real: Array) -> Array:
        """What a mask, or positions, hold where `real` [batch, seq] says that there are tokens.

        Example: of the tokens [no, yes, yes], which is a row padded on the left, [0, 0, 1] are the positions.
        """
        count = np.cumsum(real, axis=1) - 1 if self.role == "positions" else 0
        written: Array = np.where(real, self.real + count, self.padding)
        return written


# How masks are written: 1 for tokens, 1 for padding, or added to scores as it is.
FORMS = (InputRole("mask"), InputRole("mask", 0, 1), InputRole("mask", 0, -1e4))

Roles = Mapping[str, InputRole]  # by input, in the graph's order


def role_of(name: str) -> Role | None:
    """The role that a name says; None when it says nothing."""
    lowered = name.lower()
    return next((role for role, marks in MARKS.items() if any(mark in lowered for mark in marks)), None)


def described(roles: Roles) -> dict[str, str]:
    """Role -> the input that takes it, and how a mask is written when it is not 1 for tokens."""
    written: dict[tuple[float, float], str] = {(0, 1): " (1 for padding)", (0, -1e4): " (added to scores)"}
    return {each.role: name + written.get((each.real, each.padding), "") for name, each in roles.items()}


def parse_named(text: str) -> dict[Role, str]:
    """The inputs, by role, that a text like `ids=a,mask=b,types=c` names; none for "". Raises DataError otherwise."""
    named: dict[Role, str] = {}
    for part in text.split(",") if text else ():
        role, _, name = (piece.strip() for piece in part.partition("="))
        known: Role | None = next((each for each in ORDER if each == role), None)
        if known is None or not name or known in named or name in named.values():
            raise DataError(f"--inputs {text}: '{part}': needed {NAMES}, each at most once")
        named[known] = name
    return named
