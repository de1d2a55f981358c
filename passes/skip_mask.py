"""Attention without mask arithmetic when nothing in the batch is padded."""

from dataclasses import dataclass
from typing import ClassVar

import onnx
import onnx_graphsurgeon as gs

from onnxslim_bert.graph.edit import Builder
from onnxslim_bert.graph.probe import MICROSOFT, float_type, producer
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.token_masks import masks
from onnxslim_bert.rewriting.contract import Change, Context, Pass

MASK = 4  # position of MultiHeadAttention's key_padding_mask


@dataclass(frozen=True)
class SkipMask(Pass):
    """Leave the mask out of attention when no row of the batch is padded; an If node decides that at run time.

    Without a mask, ONNX Runtime's CPU kernel for MultiHeadAttention works block by block (flash attention, Dao et al.
    2022, https://arxiv.org/abs/2205.14135). With one, even a mask of ones, it works on whole score matrices, which is
    slower. The graph looks once for the smallest value of the mask: 1 takes the attention without it, 0 the one with
    it. So a single sentence, which needs no padding, takes the fast one. Exact.
    """

    name: ClassVar[str] = "skip-mask"
    exact: ClassVar[float | None] = 1e-5
    empty_rows: ClassVar[bool] = True

    def apply(self, model: Model, ctx: Context) -> Change:
        nodes = [node for node in model.graph.nodes if node.op == "MultiHeadAttention"]
        masked = [(node, mask) for node in nodes if (mask := _mask(node, model)) is not None]
        if not masked:
            return Change(0, "no MultiHeadAttention reads an input as its mask; `fuse` writes them")
        for node, mask in masked:
            build = Builder(model.graph, node.name)
            least = build.once("ReduceMin", f"{mask.name}/least", [mask], keepdims=0)
            unpadded = build.once("Cast", f"{mask.name}/unpadded", [least], to=onnx.TensorProto.BOOL)
            result = node.outputs[0]
            node.outputs.clear()
            branches = {
                "then_branch": _branch(node, model, f"{result.name}/unmasked", node.inputs[:3]),
                "else_branch": _branch(node, model, f"{result.name}/masked", list(node.inputs)),
            }
            node.inputs.clear()
            model.graph.nodes.append(gs.Node("If", f"{node.name}/if", branches, [unpadded], [result]))
        model.changed()
        return Change(len(masked), f"{len(masked)} attentions skip the mask when nothing is padded")


def _mask(node: gs.Node, model: Model) -> gs.Tensor | None:
    """The mask that attention `node` reads, when it is a mask of the tokens (`masks`), cast or not; else None.

    Other masks may hold something else, like the number of tokens of each row.
    """
    if len(node.inputs) <= MASK or node.inputs[MASK].is_empty():
        return None
    known = [mask.tensor for mask in masks(model.graph)]
    source = node.inputs[MASK]
    while not any(source is tensor for tensor in known):
        above = producer(source)
        if above is None or above.op != "Cast":
            return None
        source = above.inputs[0]
    return node.inputs[MASK]


def _branch(node: gs.Node, model: Model, name: str, inputs: list[gs.Tensor]) -> gs.Graph:
    """A subgraph of one attention that reads `inputs` from the graph around it."""
    output = gs.Variable(name, dtype=float_type(inputs[0]))
    attention = gs.Node("MultiHeadAttention", name, dict(node.attrs), inputs, [output], domain=MICROSOFT)
    return gs.Graph([attention], outputs=[output], name=name, opset=model.graph.opset)
