"""Attention without mask arithmetic when nothing in the batch is padded."""

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
from onnxslim_bert.model.write_attention import mask_bias
from onnxslim_bert.rewriting.contract import Change, Context, Pass
from onnxslim_bert.wording import plural

Operator = Literal["contrib", "onnx"]
OPSET = 23  # the first with Attention
MASK, BIAS = 4, 5  # positions of MultiHeadAttention's key_padding_mask and attention_bias


@dataclass(frozen=True)
class SkipMask(Pass):
    """Leave the mask out of attention when no row of the batch is padded; an If node decides that at run time.

    Without a mask, ONNX Runtime's CPU kernel for MultiHeadAttention works block by block (flash attention, Dao et al.
    2022, https://arxiv.org/abs/2205.14135). With one, even a mask of ones, it works on whole score matrices, which is
    slower. The graph looks once for the smallest value of the mask: 1 takes the attention without it, 0 the one with
    it. So a single sentence, which needs no padding, takes the fast one. Exact.

    attention: onnx writes both with ONNX's own operator of opset 23, https://onnx.ai/onnx/operators/onnx__Attention.html:
        such a file needs onnxruntime 1.24. Its CPU kernel transposes nothing, and is the faster one for rows of up to
        256 tokens, padded or not; from 384 tokens contrib is faster where nothing is padded.
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
        nodes = [node for node in model.graph.nodes if node.op == "MultiHeadAttention"]
        masked = [(node, mask) for node in nodes if (mask := _mask(node, model)) is not None]
        if not masked:
            return Change(0, "no MultiHeadAttention reads an input as its mask; `fuse` writes them")
        if self.attention == "onnx" and (reason := raise_opset(model.graph, OPSET)):
            raise PassError(f"skip-mask: attention=onnx needs opset {OPSET}, and {reason}; leave the option out")
        encoder = encoder_of(model) if self.attention == "onnx" else None
        widths = {layer.context: layer.value.d_out for layer in encoder.layers} if encoder is not None else {}
        for node, mask in masked:
            build = Builder(model.graph, node.name)
            least = build.once("ReduceMin", f"{mask.name}/least", [mask], keepdims=0)
            unpadded = build.once("Cast", f"{mask.name}/unpadded", [least], to=onnx.TensorProto.BOOL)
            result = node.outputs[0]
            node.outputs.clear()
            names = {"then_branch": f"{result.name}/unmasked", "else_branch": f"{result.name}/masked"}
            if result.name in widths and not node.attrs.keys() - {"num_heads", "scale"}:
                # without the Reshape, ONNX infers 0 columns of the result where those of value are not known
                shape = build.constant("columns", np.array([0, 0, widths[result.name]], np.int64))
                node.inputs[2] = build.node("Reshape", "value", [node.inputs[2], shape])
                made = [
                    _standard(node, name, build, seen) for name, seen in zip(names.values(), (None, mask), strict=True)
                ]
            else:
                made = [
                    [_contrib(node, name, node.inputs[:n])] for name, n in zip(names.values(), (3, None), strict=True)
                ]
            branches = {
                branch: gs.Graph(nodes, outputs=nodes[-1].outputs, name=names[branch], opset=model.graph.opset)
                for branch, nodes in zip(names, made, strict=True)
            }
            node.inputs.clear()
            model.graph.nodes.append(gs.Node("If", f"{node.name}/if", branches, [unpadded], [result]))
        model.changed()
        return Change(len(masked), f"without padding no mask is added, in {plural(len(masked), 'attention')}")


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


def _contrib(node: gs.Node, name: str, inputs: Sequence[gs.Tensor]) -> gs.Node:
    """The attention of `node` on `inputs`, with or without its mask."""
    output = gs.Variable(name, dtype=float_type(inputs[0]))
    return gs.Node("MultiHeadAttention", name, dict(node.attrs), list(inputs), [output], domain=MICROSOFT)


def _standard(node: gs.Node, name: str, build: Builder, mask: gs.Tensor | None) -> list[gs.Node]:
    """The attention of `node` as ONNX's own operator, and what repeats the mask, if there is one, for each query."""
    query, dtype, heads = node.inputs[0], float_type(node.inputs[0]), node.attrs["num_heads"]
    attrs = {"q_num_heads": heads, "kv_num_heads": heads} | {k: node.attrs[k] for k in ("scale",) if k in node.attrs}
    attention = gs.Node("Attention", name, attrs, list(node.inputs[:3]), [gs.Variable(name, dtype=dtype)])
    if mask is None:
        return [attention]
    one = build.constant("one", np.ones(1, np.int64))
    length, shape = (gs.Variable(f"{name}/{part}", dtype=np.int64) for part in ("length", "shape"))
    hidden = gs.Variable(f"{name}/hidden", dtype=dtype)  # [batch, 1, queries, keys]
    attention.inputs.append(hidden)
    return [
        gs.Node("Shape", length.name, {"start": 1, "end": 2}, [query], [length]),
        gs.Node("Concat", shape.name, {"axis": 0}, [one, one, length, one], [shape]),
        gs.Node("Expand", hidden.name, {}, [mask_bias(build, mask, dtype), shape], [hidden]),
        attention,
    ]
