"""Which of more texts than are wanted a student learns from."""

from collections.abc import Sequence

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.batches import Batch
from onnxslim_bert.errors import PassError
from onnxslim_bert.graph.sessions import run
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.session import model_session


def longer_rather(lengths: Array, wanted: int, rng: np.random.Generator) -> Array:
    """A draw of `wanted` texts in which each is in proportion to its tokens, `lengths` [texts]: their places.

    Efraimidis and Spirakis 2006, https://doi.org/10.1016/j.ipl.2005.11.003
    """
    places: Array = np.argsort(rng.exponential(size=len(lengths)) / np.maximum(lengths, 1))[:wanted]
    return places


def surest(logits: Array, wanted: int) -> Array:
    """Of texts with the answers `logits` [texts, classes] the surest ones, as many of each class: their places.

    Sure is an answer whose largest logit is far above the second. Of each class at most its share of `wanted` is taken;
    of one that is rarer all there are.
    """
    ranked = np.sort(logits, 1)
    order = np.argsort(ranked[:, -2] - ranked[:, -1], kind="stable")
    answered = logits.argmax(1)[order]
    share = -(-wanted // logits.shape[1])
    places: Array = np.sort(np.concatenate([order[answered == one][:share] for one in range(logits.shape[1])]))
    return places


def class_logits(teacher: Model, batches: Sequence[Batch], threads: int) -> Array:
    """The teacher's logits for every row of `batches`, [rows, classes].

    Raises PassError where its first output is no such logits, and where it answers one class to all.
    """
    name = teacher.graph.outputs[0].name
    session = model_session(teacher, [name], threads=threads)
    found = [run(session, batch.feeds)[0] for batch in batches]
    logits: Array = np.concatenate(found) if all(values.ndim == 2 for values in found) else np.zeros((0, 0))
    if logits.dtype.kind != "f" or not 1 < logits.shape[1] < teacher.encoder.hidden:
        raise PassError(f"distill: balance=true needs classes of a text; the output {name!r} has none: leave it out")
    if len(set(logits.argmax(1).tolist())) == 1:
        answered = f"distill: the teacher answers class {logits[0].argmax()} to all {len(logits)} texts"
        raise PassError(f"{answered}; needed some that it tells apart")
    return logits
