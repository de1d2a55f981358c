"""What exits are learnt from: the states behind layers, and what the model answers."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnxruntime as ort

from onnxslim_bert.arrays import Array
from onnxslim_bert.errors import CrashError, ModelError, one_line
from onnxslim_bert.graph.apart import answers_apart
from onnxslim_bert.graph.claims import scratch
from onnxslim_bert.graph.exits import NO_ROWS
from onnxslim_bert.graph.sessions import run
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.session import model_session
from onnxslim_bert.rewriting.exits.leaving_rows import LeavingRows
from onnxslim_bert.rewriting.trials import Trials


def mean_states(model: Model, places: Sequence[int], trials: Trials, most: int) -> tuple[dict[int, Array], Array | str]:
    """The mean state [texts, hidden] behind each of the layers `places`, and the model's answers [texts, classes].

    In place of answers that are no logits of classes, or that no rows behind an exit would get, why that is so.
    """
    probe = model.clone()
    leaving = LeavingRows(probe)
    layers = probe.encoder.layers
    means = [leaving.pooled(leaving.stream(layers[place])).name for place in places]
    session = model_session(probe, [*means, leaving.answers.name], threads=trials.threads)
    found: list[list[Array]] = []
    shapes: list[tuple[tuple[int, ...], tuple[int, ...]]] = []  # of the answers and of the tokens
    rows = trials.texts(most).rows
    for done, batch in enumerate(rows, start=1):
        found.append(run(session, batch.feeds))
        shapes.append((found[-1][-1].shape, batch.mask.shape))
        trials.progress("early-exit", done, len(rows))
    if reason := _no_logits(shapes, probe.encoder.hidden) or _not_without_rows(model, batch.feeds):
        return {}, reason
    *states, answers = (np.concatenate(values) for values in zip(*found, strict=True))
    return {place: values[:, 0] for place, values in zip(places, states, strict=True)}, answers


def _no_logits(shapes: Sequence[tuple[tuple[int, ...], tuple[int, ...]]], hidden: int) -> str:
    """Why answers of these shapes, to tokens of those, are no logits [batch, classes]; empty when they are."""
    odd = next((answer for answer, tokens in shapes if len(answer) != 2 or answer[0] != tokens[0]), None)
    widths = {answer[-1] for answer, _ in shapes}
    if odd is not None or len(widths) > 1 or all(answer[1:] == tokens[1:] for answer, tokens in shapes):
        return f"the output {list(odd or shapes[0][0])} for {shapes[0][1][0]} texts is not [batch, classes]"
    (width,) = widths
    return (
        "" if 2 <= width < hidden else f"the output has {width} columns: no logits of classes, from 2 to {hidden - 1}"
    )


def _not_without_rows(model: Model, feeds: Mapping[str, Array]) -> str:
    """Why the model does not run on a batch without rows, as there is behind an exit; empty when it does.

    Tried in a process of its own: kernels divide by the number of rows.
    """
    with scratch() as folder:
        path = folder / "model.onnx"
        model.save(path)
        try:
            answers_apart(path, {name: values[:0] for name, values in feeds.items()})
        except CrashError:
            found = f"ONNX Runtime {ort.__version__} crashes on the batch without rows"
            return f"when all texts have left, {found}, which MultiHeadAttention takes from {NO_ROWS} on"
        except ModelError as error:
            fused = any(node.op == "MultiHeadAttention" for node in model.graph.nodes)
            return f"when all texts have left, {one_line(error)}{'' if fused else '; `fuse` first'}"
    return ""
