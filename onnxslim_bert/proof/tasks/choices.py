"""Answers to multiple choice: each ending is scored by itself, and those of one question are chosen from."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort

from onnxslim_bert.arrays import Array
from onnxslim_bert.errors import ModelError
from onnxslim_bert.graph.sessions import answers
from onnxslim_bert.model.role_names import Roles
from onnxslim_bert.proof.outputs import ABSENT

SAME = 0.1  # of the largest score: what int8 ranges from run time may differ by when other choices are beside one


def by_question(values: Array, endings: Sequence[int]) -> Array:
    """The scores of the endings of each question, [questions, most endings], of those in a row, values [endings, 1].

    endings: how many each question has; where it has fewer than the most, the rest is ABSENT.
    """
    counts = np.asarray(endings)
    table: Array = np.full((len(counts), int(counts.max())), ABSENT, values.dtype)
    table[np.arange(table.shape[1]) < counts[:, None]] = values[:, 0]
    return table


def check_scored_apart(session: ort.InferenceSession, path: Path, roles: Roles, feeds: Mapping[str, Array]) -> None:
    """Raise ModelError when the score of a choice depends on the choices beside it, as behind a softmax over them.

    feeds: rows [rows, tokens] of the model's inputs; the first is fed beside copies of itself, and beside rows of its
    first token alone. Does nothing for a model whose inputs are no choices.
    """
    shapes = {taken.name: taken.shape for taken in session.get_inputs()}
    if any(len(shapes[name]) != 3 or values.ndim != 2 for name, values in feeds.items()):
        return
    found: list[list[Array]] = []
    for other in (False, True):
        given: dict[str, Array] = {}
        for name, values in feeds.items():
            sizes = zip(shapes[name][:2], (1, 2), strict=True)
            batch, choices = (size if isinstance(size, int) else least for size, least in sizes)
            beside = np.full_like(values[0], values[0, 0]) if other and roles[name].role == "ids" else values[0]
            given[name] = np.stack([np.stack([values[0], *[beside] * (choices - 1)])] * batch)
        found.append(answers(session, given))
    for ours, theirs in zip(*found, strict=True):
        largest = np.abs(theirs).max(initial=1e-6) if theirs.dtype.kind == "f" else np.inf
        if ours.ndim == 2 and np.abs(ours[0, 0] - theirs[0, 0]) > SAME * largest:
            raise ModelError(
                f"{path}: the score of a choice depends on the choices beside it, as behind a softmax: "
                "needed the logits of each choice as the output"
            )
