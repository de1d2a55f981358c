"""How names from a file are said: they may be long, and hold anything."""

import onnx

LONGEST = 80


def shown(name: str) -> str:
    """A name in quotes, its control characters escaped, a long one cut."""
    return repr(name if len(name) <= LONGEST else name[: LONGEST - 3] + "...")


def called(node: onnx.NodeProto) -> str:
    """A node by its name and operator, or by what it writes."""
    name = node.name or next((output for output in node.output if output), "")
    return f"node {shown(name)} ({shown(node.op_type)[1:-1]})"
