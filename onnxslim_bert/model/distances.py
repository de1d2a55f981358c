"""Scores that are looked up by how far two tokens are apart: DeBERTa's content-to-position and position-to-content.

Exporters multiply the tokens with every row of a table of positions and pick, for each pair of tokens, the column of
their distance with GatherElements. The n tokens of a text have 2n - 1 distances. So the rows of these are taken out of
the table first, in the order of distances, and the product with them holds the wanted scores on its diagonals, which
two slices of its flat form read off:

    product [.., n, 2n], column k for the distance n - 1 - k  ->  scores [.., n, n], entry (i, j) for the distance i - j

The entry (i, j) is column n - 1 - (i - j) of row i, place 2n i + n - 1 - i + j of the flat form, which is place j of
row i where rows are 2n - 1 long and begin at place n - 1.
"""

import itertools
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from onnxslim_bert.graph.edit import Builder, is_output, redirect
from onnxslim_bert.graph.probe import constant, producer

VIEWS = frozenset(["Identity", "Expand", "Squeeze", "Unsqueeze"])
POINTWISE = frozenset(
    [
        *("Abs", "Add", "And", "Cast", "Ceil", "Clip", "Div", "Equal", "Floor", "Greater", "GreaterOrEqual", "Less"),
        *("LessOrEqual", "Log", "Max", "Min", "Mul", "Neg", "Not", "Or", "Sign", "Sub", "Where"),
    ]
)


@dataclass(frozen=True)
class Distances:
    """A tensor of distances between tokens, i - j at the place (i, j), as `first` minus `second`; its length `n`."""

    tensor: gs.Tensor
    n: gs.Tensor
    turned: bool  # j - i instead


@dataclass(frozen=True)
class Lookup:
    """One lookup: `gather` picks columns of `product` that depend on distances alone.

    table: [.., rows, channels], the other operand of the product before the Transpose that `product` reads.
    """

    gather: gs.Node
    product: gs.Node
    table: gs.Tensor
    distances: Distances


def look_up_by_distance(graph: gs.Graph) -> int:
    """Rewrite each lookup by distance, and take a number that its scores are divided by into a constant table.

    Returns how many were rewritten.
    """
    build, rows = Builder(graph, "distances"), dict[int, gs.Tensor]()
    found = [lookup for node in graph.nodes if (lookup := _lookup(graph, node)) is not None]
    for lookup in found:
        index = lookup.gather.inputs[1]
        if id(index) not in rows:
            rows[id(index)] = _at_distances(build, index, lookup.distances)
        is_known = constant(_untiled(lookup.table)) is not None
        factor = _scale_behind(graph, lookup.gather.outputs[0]) if is_known else 1.0
        perm = producer(lookup.product.inputs[1]).attrs["perm"]  # type: ignore[union-attr]
        near = _rows_of(build, lookup.table, rows[id(index)], len(perm), factor)
        right = build.node("Transpose", "near", [near], perm=perm)
        product = build.node("MatMul", "products", [lookup.product.inputs[0], right])
        redirect(graph, lookup.gather.outputs[0], _diagonals(build, product, lookup.distances.n, len(perm)))
    return len(found)


def _lookup(graph: gs.Graph, node: gs.Node) -> Lookup | None:
    """The lookup that `node` is, if it is one."""
    product = producer(node.inputs[0]) if node.op == "GatherElements" else None
    if product is None or product.op != "MatMul" or len(product.outputs[0].outputs) != 1:
        return None
    turn = producer(product.inputs[1])
    perm = list(turn.attrs.get("perm", [])) if turn is not None and turn.op == "Transpose" else []
    rank = len(perm)
    last = node.attrs.get("axis", 0) in (-1, rank - 1)
    if turn is None or rank < 3 or perm != [*range(rank - 2), rank - 1, rank - 2] or not last:
        return None
    distances = _distances(node.inputs[1])
    outputs = (node.outputs[0], product.outputs[0])
    if distances is None or any(is_output(graph, tensor) for tensor in outputs):
        return None
    return Lookup(node, product, turn.inputs[0], distances)


def _distances(index: gs.Tensor) -> Distances | None:
    """The distances that `index` is computed from, place by place, if from nothing else."""
    found, front, seen = dict[int, Distances](), [index], set[int]()
    while front:
        tensor = front.pop()
        node = producer(tensor)
        values = constant(tensor)
        if id(tensor) in seen or (values is not None and values.size == 1):
            continue
        seen.add(id(tensor))
        if node is None:
            return None
        if node.op == "Sub" and (distances := _between_tokens(node)) is not None:
            found[id(tensor)] = distances
        elif node.op in VIEWS:
            front.append(node.inputs[0])
        elif node.op in POINTWISE:
            front += [given for given in node.inputs if not given.is_empty()]
        else:
            return None
    return next(iter(found.values())) if len(found) == 1 else None


def _between_tokens(node: gs.Node) -> Distances | None:
    """The distances that the difference `node` is, where it is of one range from 0 with itself, stood up and laid."""
    above = [producer(tensor) for tensor in node.inputs]
    axes = [_axis(each) for each in above]
    if sorted(axes) != [0, 1] or above[0].inputs[0] is not above[1].inputs[0]:  # type: ignore[union-attr]
        return None
    counted = producer(above[0].inputs[0])  # type: ignore[union-attr]
    if counted is None or counted.op != "Range":
        return None
    start, n, step = counted.inputs
    if not _is(start, 0) or not _is(step, 1):
        return None
    return Distances(node.outputs[0], n, turned=axes[0] == 0)


def _axis(node: gs.Node | None) -> int:
    """The axis that `node` adds to a vector, as Unsqueeze: 1 (or -1) stands it up, 0 lays it; 2 for anything else."""
    axes = constant(node.inputs[1]) if node is not None and node.op == "Unsqueeze" else None
    return 2 if axes is None or axes.size != 1 else {0: 0, 1: 1, -1: 1, -2: 0}.get(int(axes.reshape(-1)[0]), 2)


def _is(tensor: gs.Tensor, number: int) -> bool:
    values = constant(tensor)
    return values is not None and values.size == 1 and int(values.reshape(-1)[0]) == number


def _at_distances(build: Builder, index: gs.Tensor, distances: Distances) -> gs.Tensor:
    """What `index` is for the distances n - 1, ..., 1 - n and once more 1 - n, [2n]: its nodes again, on these."""
    one, minus = (build.constant("number", np.array(x, np.int64)) for x in (1, -1))
    first = build.node("Sub", "first", [distances.n, one])
    end = build.node("Sub", "end", [build.node("Neg", "last", [distances.n]), one])
    every = build.node("Range", "every", [first, end, minus])
    every = build.node("Max", "every", [every, build.node("Neg", "least", [first])])
    if distances.turned:
        every = build.node("Neg", "turned", [every])
    made = {id(distances.tensor): every}

    def again(tensor: gs.Tensor) -> gs.Tensor:
        node = producer(tensor)
        if id(tensor) not in made:
            if node is None or tensor.is_empty() or isinstance(tensor, gs.Constant):
                return tensor
            if node.op in VIEWS:
                made[id(tensor)] = again(node.inputs[0])
            else:
                made[id(tensor)] = build.node(node.op, "index", [again(each) for each in node.inputs], **node.attrs)
        return made[id(tensor)]

    flat = build.constant("flat", np.array([-1], np.int64))
    return build.node("Reshape", "rows", [again(index), flat])


def _rows_of(build: Builder, table: gs.Tensor, rows: gs.Tensor, rank: int, factor: float) -> gs.Tensor:
    """The `rows` of `table` along the axis before the last, times `factor`; before a Tile that leaves that axis."""
    whole = _untiled(table)
    values = constant(whole)
    if values is not None and factor != 1:
        scaled = build.constant(f"{whole.name}/scaled", (values * factor).astype(values.dtype))
    else:
        scaled = whole
    near = build.node("Gather", "rows", [scaled, rows], axis=rank - 2)
    return near if whole is table else build.node("Tile", "table", [near, producer(table).inputs[1]])  # type: ignore[union-attr]


def _untiled(table: gs.Tensor) -> gs.Tensor:
    """What `table` repeats along other axes than the last two; else `table`."""
    tile = producer(table)
    if tile is None or tile.op != "Tile":
        return table
    values, above = constant(tile.inputs[1]), producer(tile.inputs[1])
    if values is None and above is not None and above.op == "Concat":
        known = [constant(tensor) for tensor in above.inputs]
        behind = list(itertools.takewhile(lambda piece: piece is not None, reversed(known)))
        values = np.concatenate([np.ones(0), *(piece for piece in reversed(behind) if piece is not None)])
    return tile.inputs[0] if values is not None and len(values) > 1 and (values[-2:] == 1).all() else table


def _scale_behind(graph: gs.Graph, scores: gs.Tensor) -> float:
    """The number that `scores` are multiplied with before anything else reads them; the node for it is taken out."""
    while len(scores.outputs) == 1 and scores.outputs[0].op == "Transpose":
        scores = scores.outputs[0].outputs[0]
    node = scores.outputs[0] if len(scores.outputs) == 1 else None
    if node is None or node.op not in ("Div", "Mul") or node.inputs[0] is not scores:
        return 1.0
    values = constant(node.inputs[1])
    if values is None or values.size != 1 or not values.all() or is_output(graph, node.outputs[0]):
        return 1.0
    number = float(values.reshape(-1)[0])
    redirect(graph, node.outputs[0], scores)
    node.inputs.clear()
    return number if node.op == "Mul" else 1 / number


def _diagonals(build: Builder, product: gs.Tensor, n: gs.Tensor, rank: int) -> gs.Tensor:
    """product [.., n, 2n] -> [.., n, n], as above."""
    zero, one, two = (build.constant("number", np.array([x], np.int64)) for x in (0, 1, 2))
    size = build.once("Reshape", f"{n.name}/distances/n", [n, one])
    short = build.once(
        "Sub", f"{n.name}/distances/short", [build.once("Mul", f"{n.name}/distances/two", [size, two]), one]
    )
    start = build.once("Sub", f"{n.name}/distances/start", [size, one])
    area = build.once("Mul", f"{n.name}/distances/area", [size, short])
    stop = build.once("Add", f"{n.name}/distances/stop", [start, area])
    kept = [zero] * (rank - 2)
    flat = build.node("Reshape", "flat", [product, build.constant("flat", np.array([0] * (rank - 2) + [-1], np.int64))])
    axis = build.constant("axis", np.array([rank - 2], np.int64))
    cut = build.node("Slice", "cut", [flat, start, stop, axis])
    shape = build.once("Concat", f"{n.name}/distances/shape{rank}", [*kept, size, short], axis=0)
    rows = build.node("Reshape", "shifted", [cut, shape])
    last = build.constant("axis", np.array([rank - 1], np.int64))
    return build.node("Slice", "scores", [rows, zero, size, last])
