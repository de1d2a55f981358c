"""Attention without mask arithmetic when nothing in the batch is padded, and without blocks when a row is one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxslim_bert.errors import PassError
from onnxslim_bert.graph.edit import Builder
from onnxslim_bert.graph.opsets import raise_opset
from onnxslim_bert.graph.probe import MICROSOFT, float_type, producer
from onnxslim_bert.model.dense import encoder_of
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.token_masks import masks
from onnxslim_bert.model.whole_rows import in_blocks, part_whole_rows
from onnxslim_bert.model.write_attention import mask_bias
from onnxslim_bert.rewriting.contract import Change, Context, Pass
from onnxslim_bert.wording import plural

Operator = Literal["contrib", "onnx"]
OPSET = 23  # the first with Attention
MASK, BIAS = 4, 5  # positions of MultiHeadAttention's key_padding_mask and attention_bias
LEAST = -1e37  # added to a score, as good as the lowest number and larger
PLAIN = {"num_heads", "scale"}  # attributes that both operators have


@dataclass(frozen=True)
class SkipMask(Pass):
    """Leave the mask out of attention when no row of the batch is padded; an If node decides that at run time.

    Without a mask, ONNX Runtime's CPU kernel for MultiHeadAttention works block by block (flash attention, Dao et al.
    2022, https://arxiv.org/abs/2205.14135). With one, even a mask of ones, it works on whole score matrices, which is
    slower. The graph looks once for the smallest value of the mask: 1 takes the attention without it, 0 the one with
    it. So a single sentence, which needs no padding, takes the fast one. Exact.

    Likewise attention in a window, which `fuse` writes block by block, is taken whole where a row is a single block.

    attention: onnx writes all of these, and attention with something added to its scores, with ONNX's own operator of
        opset 23, https://onnx.ai/onnx/operators/onnx__Attention.html: such a file needs onnxruntime 1.24. Its CPU
        kernel transposes nothing, and is the faster one for rows of up to 256 tokens, padded or not; from 384 tokens
        contrib is faster where nothing is padded and nothing added. Blocks of long rows stay contrib.
    """

    name: ClassVar[str] = "skip-mask"
    exact: ClassVar[float | None] = 1e-5
    empty_rows: ClassVar[bool] = True
    attention: Operator = "contrib"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.attention not in get_args(Operator):
            raise PassError(f"skip-mask: attention={self.attention!r} is not one of {', '.join(get_args(Operator))}")

    def apply(self, model: Model, ctx: Context) -> Change:
        graph = model.graph
        nodes = [node for node in graph.nodes if node.op == "MultiHeadAttention"]
        masked = [(node, mask) for node in nodes if (mask := _mask(node, model)) is not None]
        windows = [found for node in nodes if (found := in_blocks(node)) is not None]
        encoder = encoder_of(model) if self.attention == "onnx" else None
        widths = {layer.value.result: layer.value.d_out for layer in encoder.layers} if encoder is not None else {}
        biased = [node for node in nodes if _is_biased(node) and node.inputs[2].name in widths]
        if not masked and not windows and not biased:
            return Change(0, "no MultiHeadAttention reads an input as its mask, or blocks of rows; `fuse` writes them")
        if self.attention == "onnx" and (reason := raise_opset(graph, OPSET)):
            raise PassError(f"skip-mask: attention=onnx needs opset {OPSET}, and {reason}; leave the option out")
        for node, mask in masked:
            _part_unmasked(graph, node, mask, widths.get(node.inputs[2].name))
        for found in windows:
            name, width = f"{found.joined.outputs[0].name}/whole", widths.get(found.whole[2].name)
            operands = [*found.whole, found.attention.inputs[BIAS]]
            part_whole_rows(graph, found, _attention(graph, found.attention, name, operands, width))
        for node in biased:
            result, operands = node.outputs[0], [*node.inputs[:3], node.inputs[BIAS]]
            node.outputs.clear()
            written = _attention(graph, node, result.name, operands, widths.get(node.inputs[2].name))
            written.outputs.clear()
            written.outputs.append(result)
            node.inputs.clear()
            graph.nodes.append(written)
        model.changed()
        done = {
            "without padding no mask is added, in {}": len(masked),
            "a row of one block is not cut, in {}": len(windows),
            "ONNX's operator adds to the scores of {}": len(biased),
        }
        notes = [note.format(plural(count, "attention")) for note, count in done.items() if count]
        return Change(sum(done.values()), "; ".join(notes))


def _mask(node: gs.Node, model: Model) -> gs.Tensor | None:
    """The mask that attention `node` reads, when it is a mask of the tokens (`masks`), cast or not; else None.

    Other masks may hold something else, like the number of tokens of each row. None where something else is added to
    the scores, too: no faster kernel takes that.
    """
    if len(node.inputs) <= MASK or node.inputs[MASK].is_empty():
        return None
    if len(node.inputs) > BIAS and not node.inputs[BIAS].is_empty():
        return None
    known = [mask.tensor for mask in masks(model.graph)]
    source = node.inputs[MASK]
    while not any(source is tensor for tensor in known):
        above = producer(source)
        if above is None or above.op != "Cast":
            return None
        source = above.inputs[0]
    return node.inputs[MASK]


def _is_biased(node: gs.Node) -> bool:
    """Whether attention `node` adds something to its scores, and reads nothing else but query, key and value."""
    given = [i for i, tensor in enumerate(node.inputs) if not tensor.is_empty()]
    return given == [0, 1, 2, BIAS] and not node.attrs.keys() - PLAIN


def _part_unmasked(graph: gs.Graph, node: gs.Node, mask: gs.Tensor, width: int | None) -> None:
    """Put an If in the place of attention `node`: without its `mask` where that hides nothing, with it elsewhere."""
    build = Builder(graph, node.name)
    least = build.once("ReduceMin", f"{mask.name}/least", [mask], keepdims=0)
    unpadded = build.once("Cast", f"{mask.name}/unpadded", [least], to=onnx.TensorProto.BOOL)
    result, operands = node.outputs[0], node.inputs[:3]
    node.outputs.clear()
    plain, masked = f"{result.name}/unmasked", f"{result.name}/masked"
    if width is not None and not node.attrs.keys() - PLAIN:
        dtype = float_type(operands[0])
        repeated, hidden = _for_every_query(build, masked, operands[0], mask_bias(build, mask, dtype))
        operands = [*operands[:2], _of_width(build, operands[2], width)]
        made = [[_standard(node, plain, operands)], [*repeated, _standard(node, masked, [*operands, hidden])]]
    else:
        made = [[_contrib(node, plain, operands)], [_contrib(node, masked, node.inputs)]]
    branches = {
        branch: gs.Graph(nodes, outputs=nodes[-1].outputs, name=name, opset=graph.opset)
        for branch, name, nodes in zip(("then_branch", "else_branch"), (plain, masked), made, strict=True)
    }
    node.inputs.clear()
    graph.nodes.append(gs.Node("If", f"{node.name}/if", branches, [unpadded], [result]))


def _attention(graph: gs.Graph, node: gs.Node, name: str, operands: Sequence[gs.Tensor], width: int | None) -> gs.Node:
    """The attention of `node` on `operands`: query, key, value and what is added. As ONNX's operator where the `width`
    of value is given."""
    if width is None or node.attrs.keys() - PLAIN:
        return _contrib(node, name, [*operands[:3], gs.Variable.empty(), gs.Variable.empty(), operands[3]])
    build, (*views, value, bias) = Builder(graph, node.name), operands
    # to a token whose keys all have the lowest number ONNX's operator gives zeros, others a mean of all values
    finite = build.once("Max", f"{bias.name}/above", [bias, build.constant("least", np.array(LEAST, np.float32))])
    return _standard(node, name, [*views, _of_width(build, value, width), finite])


def _contrib(node: gs.Node, name: str, inputs: Sequence[gs.Tensor]) -> gs.Node:
    """The attention of `node` on `inputs`, in a node to be put into a branch."""
    output = gs.Variable(name, dtype=float_type(inputs[0]))
    return gs.Node("MultiHeadAttention", name, dict(node.attrs), list(inputs), [output], domain=MICROSOFT)


def _standard(node: gs.Node, name: str, inputs: Sequence[gs.Tensor]) -> gs.Node:
    """The attention of `node` on `inputs`, as ONNX's own operator."""
    heads = node.attrs["num_heads"]
    attrs = {"q_num_heads": heads, "kv_num_heads": heads} | {k: node.attrs[k] for k in ("scale",) if k in node.attrs}
    return gs.Node("Attention", name, attrs, list(inputs), [gs.Variable(name, dtype=float_type(inputs[0]))])


def _of_width(build: Builder, value: gs.Tensor, width: int) -> gs.Tensor:
    """`value` with the shape said: where its columns are not known, ONNX infers 0 of them for the result."""
    return build.node("Reshape", "value", [value, build.constant("columns", np.array([0, 0, width], np.int64))])


def _for_every_query(build: Builder, name: str, query: gs.Tensor, bias: gs.Tensor) -> tuple[list[gs.Node], gs.Tensor]:
    """The nodes that repeat `bias` [batch, 1, 1, keys] for each query, and [batch, 1, queries, keys]."""
    one = build.constant("one", np.ones(1, np.int64))
    length, shape = (gs.Variable(f"{name}/{part}", dtype=np.int64) for part in ("length", "shape"))
    hidden = gs.Variable(f"{name}/hidden", dtype=float_type(query))
    nodes = [
        gs.Node("Shape", length.name, {"start": 1, "end": 2}, [query], [length]),
        gs.Node("Concat", shape.name, {"axis": 0}, [one, one, length, one], [shape]),
        gs.Node("Expand", hidden.name, {}, [bias, shape], [hidden]),
    ]
    return nodes, hidden
