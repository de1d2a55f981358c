"""The feed-forward matrices of a layer: the next dense layers behind its attention, or those beside it."""

from collections.abc import Iterator, Mapping, Sequence

import onnx_graphsurgeon as gs

from onnxslim_bert.graph.probe import constant, nodes_between, producer, read_by
from onnxslim_bert.model.linear import Linear, is_linear, read_product

Found = tuple[Linear | None, Linear, Linear]  # gate, up, down
SUMS = ("Add", "Sum")
SCALED = ("Add", "Mul", "Cast", "Identity", "Reshape")  # between a dense layer and the sum, with a constant


def feed_forward(
    tensors: Mapping[str, gs.Tensor], query: Linear, output: Linear, order: dict[int, int], later: Sequence[gs.Tensor]
) -> Found | tuple[None, None, None]:
    """The gate, up and down matrices of the layer from `query` to `output`; None for what is not there.

    tensors: all of the graph, by name.
    later: what the following attentions read as their queries: what they do not depend on is no part of this layer.
    """
    found = _behind(tensors, output, order)
    if found is not None:
        following = next((t for t in later if _depends(t, tensors[output.result], order)), None)
        if following is not None and not _depends(following, tensors[found[-1].result], order):
            found = None  # a later layer's, which lies beside its attention
    return found or _parallel(tensors, query, output, order) or (None, None, None)


def _behind(tensors: Mapping[str, gs.Tensor], output: Linear, order: dict[int, int]) -> Found | None:
    up_node = below(tensors[output.result], order)
    if up_node is None or (up := read_product(up_node)).d_in != output.d_out:
        return None
    down_node = below(tensors[up.result], order)
    if down_node is None or (down := read_product(down_node)).d_out != output.d_out or down.source == up.source:
        return None
    return _gated(tensors, up, down)


def _parallel(tensors: Mapping[str, gs.Tensor], query: Linear, output: Linear, order: dict[int, int]) -> Found | None:
    """The feed-forward beside the attention: it reads the same stream, and both results are added to it.

    Wang and Komatsuzaki 2021, https://github.com/kingoflolz/mesh-transformer-jax: x + attention(x) + feed_forward(x).
    """
    attended = tensors[output.result]
    for down_node in _added_to(attended):
        down = read_product(down_node)
        above = [down.matrices[0].source] if down.d_out == output.d_out else []
        if not above or _depends(tensors[above[0]], attended, order):
            continue
        if _depends(tensors[query.source], tensors[down.result], order):
            continue
        up_node = next((node for node in _upward(tensors[above[0]]) if is_linear(node)), None)
        if up_node is not None and (up := read_product(up_node)).d_in == output.d_out:
            return _gated(tensors, up, down)
    return None


def _gated(tensors: Mapping[str, gs.Tensor], up: Linear, down: Linear) -> Found | None:
    beside = _beside(tensors, up, down)
    if down.d_in != up.d_out or len(beside) > 1 or any(_shape(other) != _shape(up) for other in beside):
        return None
    first = sorted([up, *beside], key=lambda linear: _is_factor(tensors, linear.result))
    return (first[0], first[1], down) if beside else (None, up, down)


def _added_to(tensor: gs.Tensor) -> Iterator[gs.Node]:
    """The dense nodes whose results are added to `tensor`, at once or to the sum of it and something else."""
    front = [tensor]
    for _ in range(2):
        sums = []
        for reader in [reader for current in front for reader in _past_constants(current)]:
            for other in [t for t in reader.inputs if all(t is not current for current in front)]:
                node = _dense_above(other)
                if node is not None:
                    yield node
            sums += reader.outputs
        front = sums


def _past_constants(tensor: gs.Tensor) -> Iterator[gs.Node]:
    """The sums with something computed that read `tensor`, scaled by a constant perhaps."""
    for node in tensor.outputs:
        others = [t for t in node.inputs if t is not tensor]
        if node.op in SCALED and all(constant(other) is not None for other in others):
            yield from _past_constants(node.outputs[0])
        elif node.op in SUMS:
            yield node


def _dense_above(tensor: gs.Tensor) -> gs.Node | None:
    node = producer(tensor)
    while node is not None and not is_linear(node):
        moving = [t for t in node.inputs[: 1 if node.op == "Reshape" else None] if constant(t) is None]
        node = producer(moving[0]) if node.op in SCALED and len(moving) == 1 else None
    return node


def _upward(tensor: gs.Tensor) -> Iterator[gs.Node]:
    """The nodes above `tensor`, nearest first."""
    front, seen = [tensor], set[int]()
    while front:
        node = producer(front.pop(0))
        if node is not None and id(node) not in seen:
            seen.add(id(node))
            yield node
            front.extend(node.inputs)


def _depends(tensor: gs.Tensor, source: gs.Tensor, order: dict[int, int]) -> bool:
    """Whether `tensor` is computed from `source`."""
    start, front, seen = producer(source), [tensor], set[int]()
    while front:
        node = producer(front.pop())
        if node is start:
            return True
        if node is not None and id(node) not in seen and order[id(node)] > order[id(start)]:
            seen.add(id(node))
            front.extend(read_by(node))
    return False


def below(tensor: gs.Tensor, order: dict[int, int]) -> gs.Node | None:
    """The first dense layer in execution order that depends on `tensor`; nodes of a branch count as later ones."""
    front, seen = list(tensor.outputs), set[int]()
    found: gs.Node | None = None
    while front:
        node = front.pop()
        place = order.get(id(node), len(order))
        if id(node) in seen or (found is not None and place > order.get(id(found), len(order))):
            continue
        seen.add(id(node))
        if is_linear(node):
            found = node
        else:
            front.extend(consumer for result in node.outputs for consumer in result.outputs)
    return found


def _beside(tensors: Mapping[str, gs.Tensor], up: Linear, down: Linear) -> list[Linear]:
    """The other dense layers between what `up` reads and what `down` reads."""
    between = nodes_between([tensors[up.source], tensors[up.result]], tensors[down.source], ends=["Shape"])
    inner = {matrix.node for matrix in up.matrices}
    return [read_product(node) for node in between if is_linear(node) and node.name not in inner]


def _shape(linear: Linear) -> tuple[str, int, int]:
    return linear.source, linear.d_in, linear.d_out


def _is_factor(tensors: Mapping[str, gs.Tensor], result: str) -> bool:
    """Whether `result` is multiplied as it is: what gates it goes through an activation before."""
    readers = tensors[result].outputs
    return len(readers) == 1 and readers[0].op == "Mul"
