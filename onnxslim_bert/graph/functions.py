"""ONNX functions, which a file defines as nodes of its own: checked, and put in place of the nodes that call them."""

import onnx
import onnx.inliner

from onnxslim_bert.errors import ModelError
from onnxslim_bert.graph.schemas import ONNX, is_operator
from onnxslim_bert.graph.words import shown

Name = tuple[str, str, str]  # domain, name, overload
MOST_NODES = 12_000  # with functions in place of their calls: ONNX Runtime, too, takes them apart, slowly
MOST_BYTES = 1 << 28  # likewise
DEEPEST = 50  # calls in calls


def in_effect(model: onnx.ModelProto) -> list[onnx.FunctionProto]:
    """The functions that ONNX Runtime takes for what their nodes do: not those named as an operator that it has itself.

    Such a function is for runtimes without the operator, and may say anything.
    """
    versions = {"" if entry.domain == ONNX else entry.domain: entry.version for entry in model.opset_import}
    return [f for f in model.functions if not is_operator(f.name, "" if f.domain == ONNX else f.domain, versions)]


def check_functions(path: object, model: onnx.ModelProto) -> list[onnx.FunctionProto]:
    """The functions in effect. Raises ModelError when they call each other in a circle, or unfold beyond `MOST_NODES`
    or `MOST_BYTES`.
    """
    called = in_effect(model)
    if not called:
        return []
    functions = {(f.domain, f.name, f.overload): f for f in called}
    if len(functions) < len(called):
        raise ModelError(f"{path}: two functions have one name")
    sizes: dict[Name, tuple[int, int]] = {}
    under_way: list[Name] = []

    def size(nodes: list[onnx.NodeProto]) -> tuple[int, int]:
        """Nodes and bytes that `nodes` unfold to."""
        count = nbytes = 0
        for node in nodes:
            name = (node.domain, node.op_type, node.overload)
            more = of(name) if name in functions else (1, node.ByteSize())
            count, nbytes = count + more[0], nbytes + more[1]
            for graph in (graph for a in node.attribute for graph in ([a.g] if a.HasField("g") else a.graphs)):
                inner = size(list(graph.node))
                count, nbytes = count + inner[0], nbytes + (inner[1] if name in functions else 0)
        return count, nbytes

    def of(name: Name) -> tuple[int, int]:
        if name in under_way:
            raise ModelError(f"{path}: function {shown(name[1])} calls itself")
        if len(under_way) > DEEPEST:
            raise ModelError(f"{path}: functions call functions more than {DEEPEST} deep")
        if name not in sizes:
            under_way.append(name)
            sizes[name] = size(list(functions[name].node))
            under_way.pop()
        return sizes[name]

    for name in functions:
        of(name)
    count, nbytes = size(list(model.graph.node))
    if count > max(MOST_NODES, 2 * len(model.graph.node)) or nbytes > MOST_BYTES:
        raise ModelError(
            f"{path}: its functions unfold to {count:,} nodes and {nbytes / 1e6:,.0f} MB; at most {MOST_NODES:,} nodes "
            f"and {MOST_BYTES / 1e6:,.0f} MB are read: write it without functions"
        )
    return called


def inlined(path: object, model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its functions in place of their calls."""
    called = in_effect(model)
    if len(called) < len(model.functions):
        whole, model = model, onnx.ModelProto()
        model.CopyFrom(whole)
        del model.functions[:]
        model.functions.extend(called)
    try:
        return onnx.inliner.inline_local_functions(model)
    except Exception as error:  # onnx raises its checker's errors and RuntimeError
        raise ModelError(f"{path}: its functions cannot be put in place of their calls") from error
