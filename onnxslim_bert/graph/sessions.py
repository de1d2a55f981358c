"""ONNX Runtime sessions with the settings that every measurement states."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from onnxslim_bert.arrays import Array
from onnxslim_bert.errors import ModelError, one_line
from onnxslim_bert.graph.signature import DTYPES

CPU = ["CPUExecutionProvider"]
ort.set_default_logger_severity(4)  # what it says while it reads a file would stand beside what we say


def open_session(
    path: Path, *, threads: int = 1, spinning: bool = False, optimize: bool = True
) -> ort.InferenceSession:
    """A CPU session on the file at `path`. Raises ModelError when ONNX Runtime refuses it."""
    options = session_options(threads, spinning)
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return load(path, options)


def load(
    model: Path | bytes, options: ort.SessionOptions, providers: Sequence[str] | None = CPU
) -> ort.InferenceSession:
    """A session on a file, or on the bytes of a model. providers: None where `options` name them.

    Raises ModelError when ONNX Runtime refuses the model.
    """
    try:
        return ort.InferenceSession(model if isinstance(model, bytes) else str(model), options, providers=providers)
    except Exception as error:  # ONNX Runtime's exceptions share no public base
        raise cannot_load(model, error) from error


def cannot_load(model: Path | bytes, error: Exception) -> ModelError:
    """The error that says which model ONNX Runtime refused with `error`."""
    where, what = ("", "the model") if isinstance(model, bytes) else (f"{model}: ", "it")
    return ModelError(f"{where}ONNX Runtime cannot load {what} ({one_line(error)})")


def run(session: ort.InferenceSession, feeds: Mapping[str, Array]) -> list[Array]:
    """Every output for one batch, in the graph's order.

    Integers are cast to the width that the model takes: after the pass `int32-inputs` it takes int32 where feeds are
    int64. Raises ModelError when the model does not run on them.
    """
    widths = {taken.name: DTYPES.get(taken.type) for taken in session.get_inputs()}
    given = {name: _as_wide(values, widths.get(name)) for name, values in feeds.items()}
    try:
        outputs = [np.asarray(output) for output in session.run(None, given)]
    except Exception as error:  # ONNX Runtime's exceptions share no public base
        shapes = ", ".join(f"{name} {list(feed.shape)}" for name, feed in feeds.items())
        raise ModelError(f"the model does not run on {shapes} ({one_line(error)})") from error
    return outputs


def _as_wide(values: Array, taken: np.dtype[Any] | None) -> Array:
    is_integer = taken is not None and taken.kind == values.dtype.kind == "i"
    return values.astype(taken, copy=False) if is_integer else values


def session_options(threads: int = 1, spinning: bool = False) -> ort.SessionOptions:
    """Options of every session here: as many threads as asked for, which wait without spinning unless asked to."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spinning else "0")
    # dense layers between Q and DQ become MatMulNBits on some CPUs, whose int8 form rounds activations once more
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    return options
