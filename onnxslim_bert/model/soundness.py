"""Whether ONNX Runtime runs a graph at all: asked where something else failed on it, to know whose fault that was."""

import numpy as np
import onnx_graphsurgeon as gs

from onnxslim_bert.errors import SlimError
from onnxslim_bert.graph.sessions import load, run, session_options

OPEN = 3  # rows, tokens, and whatever else the graph leaves open


def why_unsound(graph: gs.Graph) -> str:
    """Why ONNX Runtime does not open `graph`, or run it on ones; empty when it does both."""
    feeds = {
        tensor.name: np.ones([size if isinstance(size, int) else OPEN for size in tensor.shape or ()], tensor.dtype)
        for tensor in graph.inputs
    }
    try:
        run(load(gs.export_onnx(graph, do_type_check=False).SerializeToString(), session_options()), feeds)
    except SlimError as error:
        return str(error)
    return ""
