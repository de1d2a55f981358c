"""Edits of a graphsurgeon graph that passes share. Tensors are compared with `is`, since `==` compares names only."""

import hashlib
from functools import cached_property

import numpy as np
import onnx_graphsurgeon as gs

from onnxslim_bert.arrays import Array
from onnxslim_bert.graph.probe import read_by


def is_output(graph: gs.Graph, tensor: gs.Tensor) -> bool:
    """Whether the graph gives `tensor` to its user."""
    return any(tensor is output for output in graph.outputs)


def redirect(graph: gs.Graph, old: gs.Tensor, new: gs.Tensor) -> None:
    """Make every consumer of `old` read `new` instead.

    A graph output must keep its name. So when `old` is one, the node that wrote `new` writes `old`, and who read `new`
    reads `old`; where `new` is an input, a constant or an output itself, an Identity copies it to `old`.
    """
    for node in list(old.outputs):
        for i, tensor in enumerate(node.inputs):
            if tensor is old:
                node.inputs[i] = new
    if not is_output(graph, old):
        return
    writer = new.inputs[0] if new.inputs else None
    old.inputs.clear()
    if writer is None or is_output(graph, new):
        graph.nodes.append(gs.Node("Identity", f"{old.name}/copy", inputs=[new], outputs=[old]))
        return
    position = next(i for i, tensor in enumerate(writer.outputs) if tensor is new)
    for node in list(new.outputs):
        for i, tensor in enumerate(node.inputs):
            if tensor is new:
                node.inputs[i] = old
    writer.outputs[position] = old


def sort_nodes(graph: gs.Graph) -> None:
    """Order the nodes of `graph`, and of graphs inside it, so that each comes after those that it reads from.

    The order is that of `gs.Graph.toposort`, by the longest way from an input, but without its recursion, which deep
    graphs exceed. The graph must have no circle.
    """
    for node in graph.nodes:
        for inner in node.attrs.values():
            if isinstance(inner, gs.Graph):
                sort_nodes(inner)
    above = _writers(graph)
    levels: dict[int, int] = {}
    ordered: list[gs.Node] = []
    for start in graph.nodes:
        path = [start]
        while path:
            node = path[-1]
            if id(node) in levels:
                path.pop()
            elif missing := [writer for writer in above[id(node)] if id(writer) not in levels]:
                path.extend(reversed(missing))
            else:
                levels[id(node)] = 1 + max((levels[id(writer)] for writer in above[id(node)]), default=-1)
                ordered.append(node)
    graph.nodes = sorted(ordered, key=lambda node: levels[id(node)])


def drop_unused(graph: gs.Graph) -> None:
    """Remove the nodes of `graph`, and of graphs inside it, that no output needs; inputs stay.

    As `gs.Graph.cleanup`, which lists all tensors of the graph first and takes twice as long.
    """
    for node in graph.nodes:
        for inner in node.attrs.values():
            if isinstance(inner, gs.Graph):
                drop_unused(inner)
    for tensor in graph.inputs:
        tensor.inputs.clear()
    above = _writers(graph)
    front = [writer for tensor in graph.outputs for writer in tensor.inputs if id(writer) in above]
    used: set[int] = set()
    while front:
        node = front.pop()
        if id(node) not in used:
            used.add(id(node))
            front.extend(above[id(node)])
    for node in graph.nodes:
        if id(node) not in used:
            node.inputs.clear()
            node.outputs.clear()
    graph.nodes = [node for node in graph.nodes if id(node) in used]


def _writers(graph: gs.Graph) -> dict[int, list[gs.Node]]:
    """For each node, by its id, the nodes of `graph` that write what it reads."""
    here = {id(node) for node in graph.nodes}
    return {
        id(node): [writer for tensor in read_by(node) for writer in tensor.inputs if id(writer) in here]
        for node in graph.nodes
    }


class Builder:
    """Adds nodes and constants to a graph under unique names.

    prefix: the first part of every new name, for instance "layer.0/attention".
    """

    def __init__(self, graph: gs.Graph, prefix: str) -> None:
        self.graph = graph
        self.prefix = prefix
        self._shared: dict[tuple[str, tuple[int, ...], str], gs.Constant] = {}

    @cached_property
    def _taken(self) -> set[str]:
        """All names of the graph: looked for with the first new one, as many builders never need one."""
        ends = (tensor.name for tensor in (*self.graph.inputs, *self.graph.outputs))
        return {tensor.name for node in self.graph.nodes for tensor in (*node.inputs, *node.outputs)}.union(ends)

    def under(self, prefix: str) -> "Builder":
        """A builder of other names in the same graph, which need not be listed again."""
        other = Builder(self.graph, prefix)
        other._taken = self._taken
        return other

    def constant(self, name: str, values: Array) -> gs.Constant:
        """A constant; asked again for the same type, shape and values, this builder returns the same one."""
        values = np.asarray(values)
        key = (values.dtype.str, values.shape, hashlib.sha256(np.ascontiguousarray(values).data).hexdigest())
        if key not in self._shared:
            self._shared[key] = gs.Constant(self.unique(name), values)
        return self._shared[key]

    def node(
        self, op: str, name: str, inputs: list[gs.Tensor | None], domain: str = "", **attributes: object
    ) -> gs.Tensor:
        """The first output of a new node; None among `inputs` is an input left out."""
        return self.nodes(op, name, inputs, 1, domain, **attributes)[0]

    def once(
        self, op: str, name: str, inputs: list[gs.Tensor | None], domain: str = "", **attributes: object
    ) -> gs.Tensor:
        """The output named `name` exactly: the one in the graph already, else that of a new node."""
        existing = next((t for node in self.graph.nodes for t in node.outputs if t.name == name), None)
        if existing is not None:
            return existing
        result = gs.Variable(name)
        self.graph.nodes.append(
            gs.Node(op, name, attrs=attributes, inputs=inputs, outputs=[result], domain=domain or None)
        )
        self._taken.add(name)
        return result

    def nodes(
        self, op: str, name: str, inputs: list[gs.Tensor | None], outputs: int, domain: str = "", **attributes: object
    ) -> list[gs.Tensor]:
        """All outputs of a new node."""
        results: list[gs.Tensor] = [gs.Variable(self.unique(name if i == 0 else f"{name}.{i}")) for i in range(outputs)]
        self.graph.nodes.append(
            gs.Node(
                op,
                results[0].name,
                attrs=dict(attributes),
                inputs=[gs.Variable.empty() if tensor is None else tensor for tensor in inputs],
                outputs=results,
                domain=domain or None,
            )
        )
        return results

    def unique(self, name: str) -> str:
        """`name` behind the prefix, with a number where the graph has a tensor of that name."""
        full = f"{self.prefix}/{name}" if self.prefix else name
        number = 0
        candidate = full
        while candidate in self._taken:
            number += 1
            candidate = f"{full}.{number}"
        self._taken.add(candidate)
        return candidate
