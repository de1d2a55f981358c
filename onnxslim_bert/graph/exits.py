"""Exits in a file: rows that are sure of their answer leave before the last layer, so that its time depends on them."""

from pathlib import Path

from onnxslim_bert.graph.wire import read_skeleton

EXIT = "early-exit"  # the names of nodes that the pass `early-exit` writes begin with it and a slash
NO_ROWS = "1.29"  # the first onnxruntime whose MultiHeadAttention takes a batch without rows: those before it crash


def leaves_early(path: Path) -> bool:
    """Whether the file at `path` holds exits. Raises ModelError for a file that is no model."""
    nodes = read_skeleton(path)[0].graph.node
    return any(node.op_type == "NonZero" and node.name.startswith(f"{EXIT}/") for node in nodes)
