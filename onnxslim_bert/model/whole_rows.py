"""Attention in a window (`windows`) behind an If: a row that is one block is taken whole, others are cut into blocks.

Cutting copies query, key, value and context and takes the mean of the values, all of it for nothing in a single block.
"""

from dataclasses import dataclass

import onnx_graphsurgeon as gs

from onnxslim_bert.graph.edit import Builder, redirect
from onnxslim_bert.graph.probe import float_type, producer, read_by


@dataclass(frozen=True)
class InBlocks:
    """An attention node and what cuts its operands into blocks and joins the result, as `windows.Blocks` writes it.

    whole: query, key and value before they are cut, [batch, n, width]. joined: the node that gives the context [batch,
    n, width]. apart: [1], whether there is more than one block; where not, the bias is that of the whole row.
    """

    attention: gs.Node
    whole: tuple[gs.Tensor, ...]
    joined: gs.Node
    apart: gs.Tensor


def in_blocks(attention: gs.Node) -> InBlocks | None:
    """The blocks in which `attention`, a MultiHeadAttention, is computed; None where it is not."""
    cut = [_above(tensor, "Reshape", "Gather") for tensor in attention.inputs[:3]]
    rows = _reader(_reader(attention, "Reshape"), "Slice")
    joined = _reader(rows, "Where")
    if rows is None or joined is None or len(attention.inputs) < 6 or not all(cut):
        return None
    whole = tuple(taken.inputs[0] for _, taken in filter(None, cut))
    shape = _above(cut[0][0].inputs[1], "Concat")  # type: ignore[index]
    size = _above(shape[0].inputs[1], "Where") if shape else None
    mean = _above(joined.inputs[2], "ReduceMean")
    if size is None or mean is None or size[0].inputs[2] is not rows.inputs[2] or mean[0].inputs[0] is not whole[2]:
        return None
    return InBlocks(attention, whole, joined, size[0].inputs[0])


def part_whole_rows(graph: gs.Graph, found: InBlocks, whole: gs.Node) -> None:
    """Let rows of one block take the node `whole`, attention over `found.whole`, and others the blocks."""
    result, dtype = found.joined.outputs[0], float_type(found.whole[0])
    single = Builder(graph, "").once("Not", f"{found.apart.name}/not", [found.apart])
    cutting = _own(found)
    kept = {id(node) for node in cutting}
    graph.nodes[:] = [node for node in graph.nodes if id(node) not in kept]
    branches = {}
    for branch, nodes, name in (("then_branch", [whole], "whole"), ("else_branch", cutting, "blocks")):
        nodes[-1].outputs.clear()
        nodes[-1].outputs.append(gs.Variable(f"{result.name}/{name}", dtype=dtype))
        branches[branch] = gs.Graph(nodes, outputs=nodes[-1].outputs, name=f"{result.name}/{name}", opset=graph.opset)
    graph.nodes.append(gs.Node("If", f"{result.name}/if", branches, [single], [result]))


def restore_blocks(graph: gs.Graph, node: gs.Node) -> bool:
    """Undo `part_whole_rows`; returns whether the If `node` was its work."""
    plain, cutting = (node.attrs[branch].nodes for branch in ("then_branch", "else_branch"))
    found = next(filter(None, (in_blocks(inner) for inner in cutting if inner.op == "MultiHeadAttention")), None)
    unless = producer(node.inputs[0])
    if found is None or unless is None or unless.op != "Not" or unless.inputs[0] is not found.apart:
        return False
    given = [tensor for tensor in plain[-1].inputs if not tensor.is_empty()]
    read = [*found.whole, found.attention.inputs[5]]
    if len(plain) != 1 or len(given) != 4 or not all(map(_is_view, given, read)):
        return False
    old = node.outputs[0]
    for gone in (node, *plain):
        gone.inputs.clear()
        gone.outputs.clear()
    graph.nodes[:] = [*(kept for kept in graph.nodes if kept is not node), *cutting]
    redirect(graph, old, found.joined.outputs[0])
    return True


def _own(found: InBlocks) -> list[gs.Node]:
    """The nodes from `found.whole` to `found.joined` that serve nothing else, in execution order."""
    stops = {id(tensor) for tensor in (*found.whole, found.attention.inputs[5], found.apart)}
    own, front = {id(found.joined): found.joined}, [found.joined]
    while front:
        for tensor in read_by(front.pop()):
            above = producer(tensor)
            if above is None or id(tensor) in stops or id(above) in own:
                continue
            if all(id(reader) in own for output in above.outputs for reader in output.outputs):
                own[id(above)] = above
                front.append(above)
    return list(reversed(own.values()))


def _is_view(tensor: gs.Tensor, source: gs.Tensor) -> bool:
    """Whether `tensor` is `source`, in a shape that is said or with lowest numbers raised, for ONNX's operator."""
    above = producer(tensor)
    return tensor is source or (above is not None and above.op in ("Reshape", "Max") and above.inputs[0] is source)


def _above(tensor: gs.Tensor, *operators: str) -> list[gs.Node] | None:
    """The nodes of `operators` above `tensor`, the nearest first, each by the first input of the one before."""
    found: list[gs.Node] = []
    for operator in operators:
        node = producer(tensor)
        if node is None or node.op != operator:
            return None
        found.append(node)
        tensor = node.inputs[0]
    return found


def _reader(node: gs.Node | None, operator: str) -> gs.Node | None:
    """The one node that reads what `node` writes, where it is an `operator`."""
    readers = node.outputs[0].outputs if node is not None else []
    return readers[0] if len(readers) == 1 and readers[0].op == operator else None
