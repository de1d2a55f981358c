"""The check of an ONNX file, made once, where the file is read, before anything else looks at it.

A file may come from anybody, and later code relies on what is checked here: names are text and lead somewhere, nodes
have the inputs, outputs and attributes of their operator (`schemas.py`), tensors have the bytes of their shape
(`tensors.py`), no graph nests without bounds or turns in a circle, and neither functions (`functions.py`) nor constants
(`unfolding.py`) unfold without bounds. An operator of a domain that is not known here is taken as it is.
"""

from collections import ChainMap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx

from onnxslim_bert.errors import ModelError
from onnxslim_bert.graph.functions import check_functions
from onnxslim_bert.graph.loops import check_rounds, scalars
from onnxslim_bert.graph.schemas import check_operator, operator_sets
from onnxslim_bert.graph.signature import fed_inputs
from onnxslim_bert.graph.tensors import TYPES, check_tensor
from onnxslim_bert.graph.unfolding import check_unfolding
from onnxslim_bert.graph.words import called, shown

DEEPEST = 16  # graphs in graphs
MOST_NODES = 12_000  # of a graph with those inside it; the largest encoders have some thousands
MOST_INITIALIZERS = 30_000
NUMBERS = (  # the element types of inputs and outputs
    *("FLOAT", "FLOAT16", "DOUBLE", "BOOL", "INT8", "INT16", "INT32", "INT64"),
    *("UINT8", "UINT16", "UINT32", "UINT64"),
)
LARGEST_INPUT = 1 << 26  # elements of an input whose dimensions are fixed
MOST_TOKENS, OPEN_TOKENS = 1 << 18, 16  # rows times tokens that a file fixes; tokens that count where they are open


def check_model(path: Path | str, model: onnx.ModelProto, in_file: Mapping[int, int] | None = None) -> None:
    """Check a model that was read from `path`; raise ModelError that says the first fault in one line.

    in_file: bytes of the data of initializers that were left in the file, by position. Changes one thing: dimensions of
    inputs and outputs that are written 0 or negative, which ONNX Runtime takes for open ones, become open.
    """
    _check_text(path, model)
    if not 1 <= model.ir_version <= onnx.IR_VERSION:
        raise ModelError(
            f"{path}: IR version {model.ir_version} is not known here; versions 1 to {onnx.IR_VERSION} are"
        )
    local = {(function.domain, function.name) for function in check_functions(path, model)}
    versions = operator_sets(path, {entry.domain: entry.version for entry in model.opset_import})
    for value in fed_inputs(model.graph):
        _check_interface(f"{path}: input {shown(value.name)}", value)
    for value in model.graph.output:
        _check_interface(f"{path}: output {shown(value.name)}", value, most=None)
    graphs = _Graphs(path, versions, local)
    graphs.check(model.graph, in_file or {})
    check_unfolding(path, model, graphs.foldable, in_file or {})


class _Graphs:
    """Checks a graph and those inside it.

    local: operators that are functions of the file, whose nodes have no schema. foldable: nodes of the outermost graph
    that depend on constants alone.
    """

    def __init__(self, path: Path | str, versions: Mapping[str, int], local: set[tuple[str, str]]) -> None:
        self.path, self.versions, self.local = path, versions, local
        self.nodes = 0
        self.foldable: list[onnx.NodeProto] = []
        self.around: list[onnx.GraphProto] = []  # the graph that is checked, behind those that it lies in

    def check(self, graph: onnx.GraphProto, in_file: Mapping[int, int], depth: int = 0) -> set[str]:
        """Check one graph; return the names that it reads from the graphs around it, none for the outermost."""
        if depth > DEEPEST:
            raise ModelError(f"{self.path}: graphs lie in graphs more than {DEEPEST} deep")
        self.nodes += len(graph.node)
        if self.nodes > MOST_NODES or len(graph.initializer) > MOST_INITIALIZERS:
            raise ModelError(f"{self.path}: more than {MOST_NODES:,} nodes or {MOST_INITIALIZERS:,} initializers")
        given = self._given(graph, in_file)
        written = set(given)
        for node in graph.node:
            if not any(node.output):
                raise ModelError(f"{self.path}: {called(node)} writes nothing")
            for name in filter(None, node.output):
                if name in written:
                    raise ModelError(
                        f"{self.path}: tensor {shown(name)} is written twice, the second time by {called(node)}"
                    )
                written.add(name)
        self.around.append(graph)
        reads = [self._reads(node, depth) for node in graph.node]
        self.around.pop()
        free = set().union(*reads) - written if reads else set()
        if free and not depth:
            name = next(name for read in reads for name in read if name in free)
            raise ModelError(f"{self.path}: tensor {shown(name)} is read and written by nothing")
        self._check_order(graph, given | free, reads)
        if not depth:
            weights = {tensor.name for tensor in graph.initializer}
            self.foldable = [graph.node[position] for position in _runnable(graph, weights, reads)]
        self._check_outputs(graph, written)
        return free

    def _given(self, graph: onnx.GraphProto, in_file: Mapping[int, int]) -> set[str]:
        """The names of inputs and initializers."""
        if graph.sparse_initializer:
            raise ModelError(f"{self.path}: sparse initializers are not read; store them as full tensors")
        inputs = [value.name for value in graph.input]
        weights = [tensor.name for tensor in graph.initializer]
        for what, names in (("inputs", inputs), ("initializers", weights)):
            if len(set(names)) < len(names) or "" in names:
                raise ModelError(f"{self.path}: {what} without a name, or two of one name")
        for position, tensor in enumerate(graph.initializer):
            check_tensor(self.path, tensor, in_file.get(position, 0))
        return {*inputs, *weights}

    def _reads(self, node: onnx.NodeProto, depth: int) -> set[str]:
        """What a node reads, the graphs inside it included."""
        if (node.domain, node.op_type) not in self.local:
            check_operator(self.path, node, self.versions)
        if node.op_type == "Loop" and not node.domain:
            known = [scalars(graph) for graph in reversed(self.around)]
            check_rounds(self.path, node, ChainMap(*known))
        reads = {name for name in node.input if name}
        for attribute in node.attribute:
            if attribute.HasField("t"):
                check_tensor(self.path, attribute.t, initializer=False)
            if attribute.HasField("g"):
                reads |= self.check(attribute.g, {}, depth + 1)
                counts = len(node.output), len(attribute.g.output)
                if node.op_type == "If" and counts[0] != counts[1]:
                    raise ModelError(f"{self.path}: {called(node)} has {counts[0]} outputs, a branch of it {counts[1]}")
        return reads

    def _check_order(self, graph: onnx.GraphProto, known: set[str], reads: Sequence[set[str]]) -> None:
        """Every node can run after others have; files need not list them in order."""
        stuck = set(range(len(reads))).difference(_runnable(graph, known, reads))
        if stuck:
            node = graph.node[min(stuck)]
            raise ModelError(f"{self.path}: {called(node)} reads what depends on it: the graph has a circle")

    def _check_outputs(self, graph: onnx.GraphProto, written: set[str]) -> None:
        names = [value.name for value in graph.output]
        if not names or len(set(names)) < len(names):
            raise ModelError(f"{self.path}: a graph with no outputs, or two of one name")
        lost = next((name for name in names if name not in written), None)
        if lost is not None:
            raise ModelError(f"{self.path}: output {shown(lost)} is written by nothing")


def _runnable(graph: onnx.GraphProto, known: set[str], reads: Sequence[set[str]]) -> list[int]:
    """The nodes that can run, in order, when the tensors `known` are; reads: the names that each needs."""
    missing = [len(read - known) for read in reads]
    readers: dict[str, list[int]] = {}
    for position, read in enumerate(reads):
        for name in read - known:
            readers.setdefault(name, []).append(position)
    ready = [position for position, count in enumerate(missing) if not count]
    for position in ready:  # grows while it is walked
        for name in graph.node[position].output:
            for reader in readers.pop(name, ()):
                missing[reader] -= 1
                if not missing[reader]:
                    ready.append(reader)
    return ready


def _check_text(path: Path | str, message: Any) -> None:
    """Every string of the message is UTF-8; protobuf hands out the bytes of one that is not."""
    for field, value in message.ListFields():
        if field.type == field.TYPE_STRING:
            for text in [value] if isinstance(value, str | bytes) else value:
                if isinstance(text, bytes):
                    raise ModelError(f"{path}: {field.name} {text[:40]!r} is not UTF-8 text")
        elif field.type == field.TYPE_MESSAGE:
            for inner in [value] if hasattr(value, "ListFields") else value:
                _check_text(path, inner)


def _check_interface(what: str, value: onnx.ValueInfoProto, most: int | None = LARGEST_INPUT) -> None:
    """An input or output of the model is a tensor of a known type; dimensions that are no sizes become open."""
    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type") or TYPES.get(kind.elem_type) not in NUMBERS:
        found = f"of {TYPES.get(kind.elem_type, 'unknown elements')}" if value.type.HasField("tensor_type") else "none"
        raise ModelError(f"{what} is no tensor of plain numbers ({found}); needed one of {', '.join(NUMBERS)}")
    if not kind.HasField("shape"):
        raise ModelError(f"{what} has no shape, which says at least how many dimensions it has; export it with one")
    elements = 1
    for dimension in kind.shape.dim:
        if dimension.HasField("dim_value"):
            if dimension.dim_value <= 0:
                dimension.ClearField("dim_value")
            else:
                elements *= dimension.dim_value
    if most is None:
        return
    if elements > most:
        raise ModelError(f"{what} has {elements:,} elements; more than {most:,} are not fed")
    rows, tokens = ([axis.dim_value for axis in kind.shape.dim] + [1, 1])[:2]
    if (rows or 1) * (tokens or OPEN_TOKENS) > MOST_TOKENS:
        fixed = f"{rows:,} rows" if rows else "rows"
        fixed += f" of {tokens:,} tokens" if tokens else ""
        raise ModelError(f"{what} is fixed at {fixed}; more than {MOST_TOKENS:,} tokens are not fed at once")
