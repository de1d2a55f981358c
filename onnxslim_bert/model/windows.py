"""Attention in a window, block by block: each block of queries with the keys in reach, instead of all with all.

A row of n tokens has n / size blocks of `size` queries, each with the size + 2 * reach keys around it. Blocks are rows
of one attention node. How many there are is decided when the model runs: rows that are short, or whose scores are not
hidden beyond the reach after all, are one block that holds everything.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx_graphsurgeon as gs

from onnxslim_bert.arrays import Array
from onnxslim_bert.graph.edit import Builder

HIDDEN = -1e37  # scores below are as good as -inf: no product of a query and a key changes them
LOWEST = np.finfo(np.float32).min
SMALLEST = 64  # queries of a block, at least
SHORT = 3  # blocks up to which a row is one block
PROBE = 600  # tokens


def reach_of(bias: Array) -> int | None:
    """How far tokens see by bias [.., n, n]; None where that is more than a quarter of n."""
    n = bias.shape[-1]
    seen = np.argwhere((bias > HIDDEN).reshape(-1, n, n).any(0))
    reach = int(np.abs(seen[:, 0] - seen[:, 1]).max()) if len(seen) else n
    return reach if 4 * reach <= n else None


@dataclass(frozen=True)
class Blocks:
    """The blocks of rows of which `bias` [batch or 1, 1, n, n] is added to scores.

    size, keys, count: [1], queries and keys of a block, and how many there are. queries [count * size], places
    [count * keys]: the tokens of each, one block behind the other. bias [batch * count, 1, size, keys].
    seen [batch or 1, n, 1]: whether a token sees any.
    """

    size: gs.Tensor
    keys: gs.Tensor
    n: gs.Tensor
    batch: gs.Tensor
    queries: gs.Tensor
    places: gs.Tensor
    bias: gs.Tensor
    seen: gs.Tensor

    def cut(self, build: Builder, tensor: gs.Tensor, width: int, of: Literal["queries", "keys"]) -> gs.Tensor:
        """tensor [batch, n, width] -> [batch * count, size or keys, width]."""
        places, size = (self.queries, self.size) if of == "queries" else (self.places, self.keys)
        shape = build.node("Concat", "shape", [_numbers(build, -1), size, _numbers(build, width)], axis=0)
        return build.node("Reshape", "blocks", [build.node("Gather", "blocks", [tensor, places], axis=1), shape])

    def joined(self, build: Builder, context: gs.Tensor, value: gs.Tensor, width: int) -> gs.Tensor:
        """context [batch * count, size, width] -> [batch, n, width].

        A token that sees none attends to all alike, as a softmax over equal numbers does: it gets the mean of `value`.
        """
        shape = build.node("Concat", "shape", [self.batch, _numbers(build, -1, width)], axis=0)
        rows = build.node("Reshape", "rows", [context, shape])
        rows = build.node("Slice", "rows", [rows, _numbers(build, 0), self.n, _numbers(build, 1)])
        mean = reduce(build, "ReduceMean", "mean", value, 1)
        return build.node("Where", "context", [self.seen, rows, mean])


def blocks_of(build: Builder, bias: gs.Tensor, query: gs.Tensor, reach: int) -> Blocks:
    """The blocks of a row whose tokens see `reach` tokens to each side; layers with the same bias share them."""

    def once(op: str, name: str, *inputs: gs.Tensor, **attributes: Any) -> gs.Tensor:
        return build.once(op, f"{bias.name}/window/{name}", list(inputs), **attributes)

    zero, one, last = (_numbers(build, number) for number in (0, 1, -1))
    start, step = build.constant("start", np.array(0, np.int64)), build.constant("step", np.array(1, np.int64))
    size = max(SMALLEST, 2 * reach)

    def upto(name: str, end: gs.Tensor) -> gs.Tensor:
        return once("Range", name, start, once("Squeeze", f"{name}/end", end, zero), step)

    n = once("Shape", "n", bias, start=3, end=4)
    tokens = upto("tokens", n)
    apart = once("Abs", "apart", once("Sub", "distance", once("Unsqueeze", "tall", tokens, one), tokens))
    far = once("Greater", "far", apart, _numbers(build, reach))
    lowest, hidden = (build.constant("number", np.array(number, np.float32)) for number in (LOWEST, HIDDEN))
    beyond = once("Reshape", "beyond/flat", once("Where", "beyond", far, bias, lowest), last)
    is_window = once(
        "Less", "holds", reduce(build, "ReduceMax", f"{bias.name}/window/most", beyond, 0, own=True), hidden
    )
    apart_too = once("And", "parts", is_window, once("Greater", "long", n, _numbers(build, SHORT * size)))
    queries = once("Where", "size", apart_too, _numbers(build, size), n)
    lead = once("Where", "lead", apart_too, _numbers(build, reach), zero)
    keys = once("Add", "keys", queries, once("Add", "both", lead, lead))
    end = once("Sub", "end", n, one)
    count = once("Div", "count", once("Add", "up", end, queries), queries)
    first = once("Unsqueeze", "first", once("Mul", "starts", upto("numbers", count), queries), one)
    rows = once("Min", "rows", once("Add", "rows/all", first, upto("within", queries)), end)
    around = once("Add", "around", once("Sub", "before", first, lead), upto("among", keys))
    columns = once("Min", "columns", once("Max", "columns/low", around, zero), end)
    inside = once("Unsqueeze", "inside", once("Equal", "real", around, columns), one)
    tall = once("Unsqueeze", "rows/tall", once("Mul", "rows/offset", rows, n), _numbers(build, 2))
    places = once("Add", "places", tall, once("Unsqueeze", "columns/flat", columns, one))
    flat = once("Reshape", "bias/flat", bias, _numbers(build, 0, -1))
    taken = once("Where", "bias/inside", inside, once("Gather", "bias/taken", flat, places, axis=1), lowest)
    batch = once("Shape", "batch", query, start=0, end=1)
    every = once("Expand", "bias/every", taken, once("Concat", "bias/rows", batch, one, one, one, axis=0))
    shape = once("Concat", "bias/shape", last, one, queries, keys, axis=0)
    most = reduce(build, "ReduceMax", f"{bias.name}/window/seen/most", bias, 3, own=True)
    seen = once("Squeeze", "seen", once("Greater", "seen/any", most, hidden), one)
    return Blocks(
        queries,
        keys,
        n,
        batch,
        once("Reshape", "rows/flat", rows, last),
        once("Reshape", "columns/all", columns, last),
        once("Reshape", "bias/blocks", every, shape),
        seen,
    )


def reduce(build: Builder, op: str, name: str, tensor: gs.Tensor, axis: int, *, own: bool = False) -> gs.Tensor:
    """`tensor` reduced along `axis`, which stays with size 1. own: the result has the name `name` exactly, once."""
    write = build.once if own else build.node
    if build.graph.opset < 18 and op != "ReduceSum":
        return write(op, name, [tensor], axes=[axis], keepdims=1)
    return write(op, name, [tensor, _numbers(build, axis)], keepdims=1)


def _numbers(build: Builder, *numbers: int) -> gs.Constant:
    return build.constant("numbers", np.array(numbers, np.int64))
