"""The feed-forward matrices of a layer: the next dense layers behind its attention."""

from collections.abc import Callable, Mapping

import onnx_graphsurgeon as gs

from onnxslim_bert.graph.probe import nodes_between, producer
from onnxslim_bert.model.linear import Linear, is_linear, read_product


def feed_forward(
    graph: gs.Graph, output: Linear, order: dict[int, int]
) -> tuple[Linear | None, Linear | None, Linear | None]:
    """The gate, up and down matrices behind `output`; None for what is not there, or not recognised."""
    tensors = graph.tensors()
    up_node = below(tensors[output.result], order)
    if up_node is None or (up := read_product(up_node)).d_in != output.d_out:
        return None, None, None
    down_node = below(tensors[up.result], order)
    if down_node is None or (down := read_product(down_node)).d_out != output.d_out or down.source == up.source:
        return None, None, None
    beside = _beside(tensors, up, down)
    if down.d_in != up.d_out or len(beside) > 1 or any(_shape(other) != _shape(up) for other in beside):
        return None, None, None
    first = sorted([up, *beside], key=lambda linear: _is_factor(tensors, linear.result))
    return (first[0], first[1], down) if beside else (None, up, down)


def below(tensor: gs.Tensor, order: dict[int, int], accept: Callable[[gs.Node], bool] = is_linear) -> gs.Node | None:
    """The first accepted node in execution order that depends on `tensor`."""
    front, seen = list(tensor.outputs), set[int]()
    found: gs.Node | None = None
    while front:
        node = front.pop()
        if id(node) in seen or (found is not None and order[id(node)] > order[id(found)]):
            continue
        seen.add(id(node))
        if accept(node):
            found = node
        else:
            front.extend(consumer for result in node.outputs for consumer in result.outputs)
    return found


def _beside(tensors: Mapping[str, gs.Tensor], up: Linear, down: Linear) -> list[Linear]:
    """The other dense layers between what `up` reads and what `down` reads."""
    source = tensors[up.source]
    view = producer(source)  # tokens as rows; their shape is read when the rows are tokens again
    ends = [source, tensors[up.result], *(view.inputs[:1] if view is not None and view.op == "Reshape" else [])]
    between = nodes_between(ends, tensors[down.source])
    inner = {matrix.node for matrix in up.matrices}
    return [read_product(node) for node in between if is_linear(node) and node.name not in inner]


def _shape(linear: Linear) -> tuple[str, int, int]:
    return linear.source, linear.d_in, linear.d_out


def _is_factor(tensors: Mapping[str, gs.Tensor], result: str) -> bool:
    """Whether `result` is multiplied as it is: what gates it goes through an activation before."""
    readers = tensors[result].outputs
    return len(readers) == 1 and readers[0].op == "Mul"
