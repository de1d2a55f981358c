"""Attention with something added to its scores: softmax(scale q kᵀ + B) v, B independent of query, key and value.

Relative positions, ALiBi, windows, causal masks and padding are such B; q and k may be turned by rotary positions. What
adds B is read node by node, so that what is found holds at every length, however B is made; that the nodes compute the
formula is proven by running them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxslim_bert.arrays import Array
from onnxslim_bert.graph.edit import Builder
from onnxslim_bert.graph.probe import MICROSOFT, constant, producer
from onnxslim_bert.model.attention_form import attention
from onnxslim_bert.model.attention_region import attention_region
from onnxslim_bert.model.encoder import Layer
from onnxslim_bert.model.region import Region, is_close
from onnxslim_bert.model.rotary import Rotation, rotation, turned_by
from onnxslim_bert.model.token_masks import has_fixed_length
from onnxslim_bert.model.windows import LOWEST, PROBE, blocks_of, reach_of, reduce

VIEWS = frozenset(["Reshape", "Transpose", "Identity", "Squeeze", "Unsqueeze"])
GUARDS = frozenset(["Softmax", "IsNaN", "Where", "MatMul"])  # a guard puts zeros for tokens that see no key


@dataclass(frozen=True)
class BiasedAttention:
    """softmax(scale * q @ k.T + sum of factor * term) @ v for each head.

    terms: each with its factor; together [batch or 1, heads or 1, seq or 1, seq], the first axis left out where rank is
    3. flat: one row of them holds for all tokens, as where padding alone is hidden.
    turned: what turns query and key first; None for one that is taken as it is. guarded: tokens that see no key, whose
    terms are all -inf, get zeros; then all heads have the same terms. reach: how many tokens each sees to both sides,
    where that is a window and all heads have the same terms.
    """

    scale: float
    terms: tuple[tuple[gs.Tensor, float], ...]
    turned: tuple[Rotation | None, Rotation | None] = (None, None)
    guarded: bool = False
    rank: int = 4
    flat: bool = False
    reach: int | None = None

    def write(self, build: Builder, roles: Sequence[gs.Tensor], heads: int, size: int) -> gs.Tensor:
        """One node for it over `roles` (query, key, value) of `heads` heads, `size` wide each.

        Layers that add the same share the sum of the terms.
        """
        pairs = zip(roles, (*self.turned, None), strict=True)
        inputs = [role if turn is None else turn.write(build, role, heads, size) for role, turn in pairs]
        bias = self._bias(build)
        seen = None
        if self.guarded and bias is not None:
            seen, bias = _seen(build, bias)
        blocks = None
        if self.reach is not None and bias is not None:
            blocks, width = blocks_of(build, bias, roles[0], self.reach), heads * size
            whole, inputs = inputs, [blocks.cut(build, inputs[0], width, "queries")]
            inputs += [blocks.cut(build, tensor, width, "keys") for tensor in whole[1:]]
            bias = blocks.bias
        operands = inputs if bias is None else [*inputs, None, None, bias]
        context = build.node("MultiHeadAttention", "context", operands, MICROSOFT, num_heads=heads, scale=self.scale)
        if blocks is not None:
            context = blocks.joined(build, context, whole[2], width)
        return context if seen is None else build.node("Mul", "seen", [context, seen])

    def _bias(self, build: Builder) -> gs.Tensor | None:
        """The sum of the terms, rank 4."""
        total: gs.Tensor | None = None
        for term, factor in self.terms:
            number = build.constant("factor", np.array(factor, np.float32))
            added = term if factor == 1 else build.once("Mul", f"{term.name}/times/{factor:.9g}", [term, number])
            total = added if total is None else build.once("Add", f"{total.name}+{added.name}", [total, added])
        if total is not None and self.rank == 3:
            axes = build.constant("axes", np.zeros(1, np.int64))
            total = build.once("Unsqueeze", f"{total.name}/rows", [total, axes])
        return _for_every_token(build, total) if total is not None and self.flat else total


def _for_every_token(build: Builder, bias: gs.Tensor) -> gs.Tensor:
    """bias [.., 1, seq] -> [.., seq, seq], which one operator wants."""
    seq = build.once("Shape", f"{bias.name}/seq", [bias], start=3, end=4)
    one = build.constant("one", np.ones(1, np.int64))
    shape = build.once("Concat", f"{bias.name}/square", [one, one, seq, one], axis=0)
    return build.once("Expand", f"{bias.name}/every", [bias, shape])


def _seen(build: Builder, bias: gs.Tensor) -> tuple[gs.Tensor, gs.Tensor]:
    """1 for tokens that see a key and 0 for others, [batch or 1, seq, 1]; and `bias` with a finite number for -inf.

    A softmax over -inf alone is not a number, and would reach every token by way of the values of the next layer.
    """
    lowest = build.constant("lowest", np.array(LOWEST))
    finite = build.once("Max", f"{bias.name}/finite", [bias, lowest])
    largest = reduce(build, "ReduceMax", f"{bias.name}/largest", bias, 3, own=True)
    sees = build.once("GreaterOrEqual", f"{bias.name}/sees", [largest, lowest])
    as_float = build.once("Cast", f"{bias.name}/seen4", [sees], to=onnx.TensorProto.FLOAT)
    first = build.constant("axis", np.ones(1, np.int64))
    return build.once("Squeeze", f"{bias.name}/seen", [as_float, first]), finite


def biased_attention(graph: gs.Graph, layer: Layer) -> BiasedAttention | None:
    """What the attention of `layer` computes, if it is of this form; else None."""
    region = attention_region(graph, layer)
    if layer.key.d_out != layer.query.d_out or region.stranger is not None or region.half or layer.first_token:
        return None
    softmax = [node for node in region.nodes if node.op == "Softmax"]
    if len(softmax) != 1 or softmax[0].attrs.get("axis", -1) not in (-1, 3):
        return None
    found = _scores(region, softmax[0])
    if found is None or not _is_mixed_plainly(region, softmax[0]):
        return None
    found = replace(found, guarded=any(node.op == "IsNaN" for node in region.nodes))
    return _proven(region, layer.heads, found)


def _scores(region: Region, softmax: gs.Node) -> BiasedAttention | None:
    """The scale and the terms of the scores, going up from their softmax."""
    moving = region.moving()
    tensor, factor, terms = softmax.inputs[0], 1.0, list[tuple[gs.Tensor, float]]()
    while (node := producer(tensor)) is not None and node.op != "MatMul":
        ours = [t for t in node.inputs if id(t) in moving]
        others = [t for t in node.inputs if id(t) not in moving]
        if len(ours) != 1 or len(others) != 1:
            return None
        if node.op in ("Add", "Sum"):
            terms.append((others[0], factor))
        elif (number := _number(node, ours[0], others[0])) is not None:
            factor *= number
        else:
            return None
        tensor = ours[0]
    if node is None:
        return None
    turned: list[Rotation | None] = []
    for operand, source in zip(node.inputs, region.sources[:2], strict=True):
        found = _view(operand, source, moving)
        if found is None:
            return None
        factor *= found[0]
        turned.append(found[1])
    return BiasedAttention(factor, tuple(terms), (turned[0], turned[1])) if terms or any(turned) else None


def _number(node: gs.Node, ours: gs.Tensor, other: gs.Tensor) -> float | None:
    """What `node` multiplies `ours` with, one number; None for any other node."""
    values = constant(other)
    if values is None or values.size != 1:
        return None
    value = float(values.reshape(-1)[0])
    if node.op == "Mul":
        return value
    return 1 / value if node.op == "Div" and node.inputs[0] is ours and value else None


def _view(operand: gs.Tensor, source: gs.Tensor, moving: set[int]) -> tuple[float, Rotation | None] | None:
    """The number that `operand`, a view of `source`, is multiplied with, and what turns it; None for anything else."""
    scale, turn = 1.0, None
    while operand is not source:
        node = producer(operand)
        if node is None:
            return None
        if node.op in VIEWS:
            operand = node.inputs[0]
        elif turn is None and (turn := rotation(operand, moving)) is not None:
            operand = turn.source
        else:
            ours, others = node.inputs[0], node.inputs[1:]
            if len(others) == 1 and constant(ours) is not None:
                ours, others = others[0], [ours]
            number = _number(node, ours, others[0]) if len(others) == 1 else None
            if number is None:
                return None
            scale *= number
            operand = ours
    return scale, turn


def _is_mixed_plainly(region: Region, softmax: gs.Node) -> bool:
    """Whether views, one product and a guard alone lie behind the probabilities; what gives shapes does not count."""
    moving, seen = region.moving(), {id(tensor) for tensor in (softmax.outputs[0], *region.sources)}
    front = [region.target]
    while front:
        tensor = front.pop()
        if id(tensor) in seen or id(tensor) not in moving:
            continue
        seen.add(id(tensor))
        node = producer(tensor)
        if node is None or node.op not in VIEWS | GUARDS:
            return False
        front += node.inputs
    return True


def _proven(region: Region, heads: int, found: BiasedAttention) -> BiasedAttention | None:
    """`found` with the shape of its terms' sum; None unless the nodes give what the formula gives."""
    for given in region.probes():
        try:
            actual = region.run_targets(given, [region.target])[0]
            bias = np.asarray(sum(factor * _value(region, given, term) for term, factor in found.terms))
            query, key = (_turned(region, given, each, turn, heads) for each, turn in enumerate(found.turned))
        except ValueError:
            return None
        length = given[region.hidden.name].shape[1]
        if found.terms:
            if bias.ndim not in (3, 4) or bias.shape[-1] != length or bias.shape[-2] not in (1, length):
                return None
            found = replace(found, rank=bias.ndim, flat=bias.shape[-2] == 1 < length)
        if query is None or key is None:
            return None
        first, second = (turn and _by_row(region, given, turn, length) for turn in found.turned)
        found = replace(found, turned=(first, second))
        expected = attention(query, key, given[region.sources[2].name], heads, found.scale, True, bias)
        if found.guarded and found.terms:
            if bias.shape[-3] != 1:
                return None
            expected = np.where((bias.max(-1) == -np.inf)[..., 0, :, None], 0, expected)
        if not is_close(actual, expected):
            return None
        alike = found.terms and bias.shape[-3:-2] == (1,) and bias.ndim == 4
    return replace(found, reach=_reach(region, found)) if alike and not found.flat else found


def _reach(region: Region, found: BiasedAttention) -> int | None:
    """How far tokens see, in a row of PROBE tokens."""
    if has_fixed_length(region.graph):
        return None
    try:
        given = region.given(region.feeds(1, PROBE))
        return reach_of(np.asarray(sum(factor * _value(region, given, term) for term, factor in found.terms)))
    except ValueError:  # as long a row it does not take
        return None


def _turned(region: Region, given: dict[str, Array], role: int, turn: Rotation | None, heads: int) -> Array | None:
    """The query (role 0) or key (1), turned; None where it is turned in another way."""
    values = given[region.sources[role].name]
    if turn is None:
        return values
    return turned_by(values, _value(region, given, turn.cos), _value(region, given, turn.sin), heads)


def _by_row(region: Region, given: dict[str, Array], turn: Rotation, seq: int) -> Rotation:
    """`turn`, told whether its angles are those of each row of the batch."""
    angles = _value(region, given, turn.cos)
    return replace(turn, by_row=angles.size > seq * angles.shape[-1])


def _value(region: Region, given: dict[str, Array], tensor: gs.Tensor) -> Array:
    if (values := constant(tensor)) is not None:
        return values
    return given[tensor.name] if tensor.name in given else region.run_targets(given, [tensor])[0]
