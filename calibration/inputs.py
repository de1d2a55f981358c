"""Which of a model's inputs takes token ids, which the mask and which the segment numbers."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from onnxslim_bert.errors import DataError

Role = Literal["ids", "mask", "types"]

# Parts of names as exporters write them; "input_mask" and "input_type_ids" hold "input" too, so ids come last.
MARKS: dict[Role, tuple[str, ...]] = {
    "mask": ("mask",),
    "types": ("type", "segment"),
    "ids": ("input_ids", "input_word_ids", "input.1", "token_ids", "tokens"),
}
ORDER: tuple[Role, ...] = ("ids", "mask", "types")
READY = "give the model's inputs ready in an npz file"


def find_roles(inputs: Mapping[str, np.dtype[Any]]) -> dict[str, Role]:
    """The role of every input, by its name; names that say nothing take the free roles in the order ids, mask, types.

    Raises DataError for an input that text cannot fill, or when nothing takes token ids.
    """
    roles: dict[str, Role] = {}
    for name in inputs:
        said = role_of(name)
        if said and said not in roles.values():
            roles[name] = said
    free: list[Role] = [role for role in ORDER if role not in roles.values()]
    for name, dtype in inputs.items():
        if name not in roles:
            if not free or dtype.kind not in "iu" or "position" in name.lower():
                raise DataError(f"model input '{name}' ({dtype}) cannot be made from text: {READY}")
            roles[name] = free.pop(0)
    fed = next((name for name in inputs if roles[name] == "ids"), None)
    if fed is None or inputs[fed].kind not in "iu":
        found = {name: str(dtype) for name, dtype in inputs.items()}
        raise DataError(f"model inputs {found}: none takes integer token ids: {READY}")
    return {name: roles[name] for name in inputs}


def role_of(name: str) -> Role | None:
    """The role that a name says; None when it says nothing."""
    lowered = name.lower()
    return next((role for role, marks in MARKS.items() if any(mark in lowered for mark in marks)), None)
