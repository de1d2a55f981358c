"""Regions of a graph, recognised by what they compute.

Exporters write the same mathematics in many ways. Instead of one pattern for each, a region is cut out between named
tensors, run on small probes, and compared with the formula that it should be. What agrees is that formula, whichever
nodes spell it.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxslim_bert.arrays import Array
from onnxslim_bert.errors import BoundsError
from onnxslim_bert.graph.bounds import load_within, run_within
from onnxslim_bert.graph.runtime_words import in_words

MICROSOFT = "com.microsoft"  # the domain of ONNX Runtime's own operators


def producer(tensor: gs.Tensor) -> gs.Node | None:
    """The node that writes `tensor`, None for graph inputs and constants."""
    return tensor.inputs[0] if tensor.inputs else None


def constant(tensor: gs.Tensor) -> Array | None:
    """The values of a constant tensor, else None."""
    return tensor.values if isinstance(tensor, gs.Constant) else None


def attribute_text(value: Any) -> str:
    """The value of a node's attribute as text, the same for equal values; a tensor's content is written out."""
    if isinstance(value, gs.Constant):
        array = np.asarray(value.values)
        return f"{array.dtype}{array.shape}{array.tobytes().hex()}"
    return repr(value)


def read_by(node: gs.Node) -> list[gs.Tensor]:
    """The tensors that `node` reads, those that its subgraphs read from the graph around it included."""
    inner = subgraph_nodes(node) if node.attrs else []
    if not inner:
        return list(node.inputs)
    written = {id(tensor) for other in inner for tensor in other.outputs}
    captured = [tensor for other in inner for tensor in read_by(other) if id(tensor) not in written]
    return [*node.inputs, *captured]


def subgraph_nodes(node: gs.Node) -> list[gs.Node]:
    """The nodes of the subgraphs of `node`, as the branches of an If; not those of subgraphs within."""
    subgraphs = [value for value in node.attrs.values() if isinstance(value, gs.Graph)]
    return [inner for graph in subgraphs for inner in graph.nodes]


def float_type(tensor: gs.Tensor) -> np.dtype[Any]:
    """float16 or float32, whichever `tensor` is computed in.

    It is the type of the nearest Cast or float constant, going up from node to node by their first inputs; float32
    when there is none.
    """
    node = producer(tensor)
    while node is not None:
        if node.op == "Cast":
            return np.dtype(np.float16 if node.attrs["to"] == onnx.TensorProto.FLOAT16 else np.float32)
        types = [values.dtype for source in node.inputs if (values := constant(source)) is not None]
        if found := next((dtype for dtype in types if dtype in (np.float16, np.float32)), None):
            return found
        node = producer(node.inputs[0]) if node.inputs else None
    return np.dtype(np.float32)


def nodes_between(sources: Iterable[gs.Tensor], target: gs.Tensor, ends: Collection[str] = ()) -> list[gs.Node]:
    """The nodes that compute `target` from `sources`, in execution order.

    Going up from `target` ends at `sources`, graph inputs, constants and what the operators `ends` give; without
    `sources` it is all that it needs.
    """
    known = {id(tensor) for tensor in sources}
    order: list[gs.Node] = []
    seen: set[int] = set()
    stack: list[tuple[gs.Tensor, bool]] = [(target, False)]
    while stack:
        tensor, expanded = stack.pop()
        node = producer(tensor)
        if id(tensor) in known or node is None or id(node) in seen or node.op in ends:
            continue
        if expanded:
            seen.add(id(node))
            order.append(node)
        else:
            stack.append((tensor, True))
            stack.extend((source, False) for source in read_by(node))
    return order


def inputs_of(nodes: Sequence[gs.Node]) -> list[gs.Tensor]:
    """The inputs of the region that `nodes` make up: what they read, less constants and what they write themselves."""
    written = {id(tensor) for node in nodes for tensor in node.outputs}
    read = {id(t): t for node in nodes for t in read_by(node) if not isinstance(t, gs.Constant) and not t.is_empty()}
    return [tensor for key, tensor in read.items() if key not in written]


def grow(start: gs.Tensor, operators: Collection[str], largest_constant: int) -> list[gs.Node]:
    """The nodes reached from `start` through `operators` whose other operands are small constants.

    Nodes come in execution order. A node joins when each operand is `start`, a joined node's output or a constant of at
    most `largest_constant` elements.
    """
    inside = {id(start): start}
    joined: dict[int, gs.Node] = {}

    def joins(node: gs.Node) -> bool:
        values = [(tensor, constant(tensor)) for tensor in node.inputs]
        return node.op in operators and all(
            id(tensor) in inside or (value is not None and value.size <= largest_constant) for tensor, value in values
        )

    while True:
        reached = [node for tensor in inside.values() for node in tensor.outputs]
        new = [node for node in reached if id(node) not in joined and joins(node)]
        if not new:
            return list(joined.values())
        for node in new:
            joined[id(node)] = node
            inside |= {id(tensor): tensor for tensor in node.outputs}


def opsets_of(graph: gs.Graph) -> list[onnx.OperatorSetIdProto]:
    """The operator sets that the graph's nodes are written in."""
    opsets = {entry.domain: entry.version for entry in graph.import_domains or ()}
    opsets = {"": graph.opset, MICROSOFT: 1} | opsets
    return [onnx.helper.make_opsetid(domain, version) for domain, version in opsets.items()]


def run(
    nodes: Sequence[gs.Node], feeds: Mapping[str, Array], target: gs.Tensor, opsets: Sequence[onnx.OperatorSetIdProto]
) -> Array:
    """The value of `target` when `nodes` run on `feeds`.

    Raises ValueError when ONNX Runtime cannot run them on feeds of these shapes.
    """
    return run_all(nodes, feeds, [target], opsets)[0]


def run_all(
    nodes: Sequence[gs.Node],
    feeds: Mapping[str, Array],
    targets: Sequence[gs.Tensor],
    opsets: Sequence[onnx.OperatorSetIdProto],
) -> list[Array]:
    """The value of each of `targets`; otherwise as `run`.

    Raises BoundsError when the nodes take more memory or time than a region of a transformer does.
    """
    import onnxruntime as ort

    inputs = [
        gs.Variable(name, dtype=values.dtype, shape=[f"{name}.{i}" for i in range(values.ndim)])
        for name, values in feeds.items()
    ]
    region = gs.Graph(
        nodes=list(nodes),
        inputs=inputs,
        outputs=[gs.Variable(target.name) for target in targets],
        import_domains=opsets,
        opset=next(entry.version for entry in opsets if entry.domain in ("", "ai.onnx")),
    )
    proto = gs.export_onnx(region, do_type_check=False)
    del proto.opset_import[:]
    proto.opset_import.extend(opsets)
    proto.ir_version = 10
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    data = proto.SerializeToString()
    try:
        with load_within(len(data)):
            session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        values = run_within(session, [target.name for target in targets], feeds, len(data))
    except BoundsError:
        raise
    except Exception as error:  # ONNX Runtime's exceptions share no public base
        raise ValueError(in_words(error)) from error
    return [np.asarray(value) for value in values]
