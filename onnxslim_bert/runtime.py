"""ONNX Runtime sessions with the settings that every measurement states."""

from pathlib import Path

import onnxruntime as ort


def open_session(
    path: Path, *, threads: int = 1, spinning: bool = False, optimize: bool = True
) -> ort.InferenceSession:
    """A CPU session on the file at `path`."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spinning else "0")
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
