"""ONNX Runtime sessions with the settings that every measurement states."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime as ort

from onnxslim_bert.arrays import Array
from onnxslim_bert.errors import ModelError, one_line

if TYPE_CHECKING:
    pass

CPU = ["CPUExecutionProvider"]


def open_session(
    path: Path, *, threads: int = 1, spinning: bool = False, optimize: bool = True
) -> ort.InferenceSession:
    """A CPU session on the file at `path`. Raises ModelError when ONNX Runtime refuses it."""
    options = session_options(threads, spinning)
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return ort.InferenceSession(str(path), options, providers=CPU)
    except Exception as error:  # ONNX Runtime's exceptions share no public base
        raise ModelError(f"{path}: ONNX Runtime cannot load it ({one_line(error)})") from error


def run(session: ort.InferenceSession, feeds: Mapping[str, Array]) -> list[Array]:
    """Every output for one batch. Raises ModelError when the model does not run on it."""
    try:
        outputs = [np.asarray(output) for output in session.run(None, dict(feeds))]
    except Exception as error:  # ONNX Runtime's exceptions share no public base
        shapes = ", ".join(f"{name} {list(feed.shape)}" for name, feed in feeds.items())
        raise ModelError(f"the model does not run on {shapes} ({one_line(error)})") from error
    return outputs


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
