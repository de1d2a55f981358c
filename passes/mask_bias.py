"""One additive attention mask, looked up from the token mask."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from onnxslim_bert.errors import PassError
from onnxslim_bert.graph.edit import Builder, redirect
from onnxslim_bert.graph.probe import constant, float_type, nodes_between, producer
from onnxslim_bert.model.encoder import Layer
from onnxslim_bert.model.layer_words import unproven
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.shapes import renew_shapes
from onnxslim_bert.model.write_attention import emit_attention
from onnxslim_bert.rewriting.contract import Change, Context, Pass
from onnxslim_bert.rewriting.mask_lookups import bias_table, emit_bias, look_up_terms
from onnxslim_bert.wording import plural

PLAIN = frozenset(["Reshape", "Transpose", "Mul", "MatMul", "Add", "Softmax", "Gather", "Unsqueeze"])


@dataclass(frozen=True)
class MaskBias(Pass):
    """Add one bias [batch, 1, 1, seq] to the scores of every layer: 0 for real tokens, `value` for padding.

    The bias is looked up by the mask in a table of two numbers, Gather([value, 0], mask). Example: the mask [1, 1, 0]
    gives [0, 0, -10000]. So nothing is cast, compared or infinite, and providers that take neither booleans nor a Cast
    of an input (CoreML, NNAPI) take the mask as they take token ids. Attention becomes MatMul, Add, Softmax, MatMul,
    without branches or guards.

    Where attention is not proven, what the mask decides there is looked up in graphs of fixed shapes (`fix-shapes`),
    as far as running it on masks tells what it is.

    Within 1e-5, if the mask holds 0 and 1 only, for rows with at least one real token: `value` then outweighs every
    score.

    value: what padding gets, below 0. -10000 is finite in float16. Where scores are quantized, a value nearer to 0
        leaves them more of the range.
    """

    name: ClassVar[str] = "mask-bias"
    exact: ClassVar[float | None] = 1e-5
    value: float = -1e4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.value >= 0:
            raise PassError(f"mask-bias: value={self.value:g}; a value below 0 was needed to hide a key")

    def apply(self, model: Model, ctx: Context) -> Change:
        layers = model.encoder.layers
        reasons = [f"; left as it is: attention of {where}: {reason}" for where, reason in unproven(layers)]
        masked = [layer for layer in layers if layer.form is not None and layer.form.mask]
        todo = [layer for layer in masked if not is_looked_up(model, layer, self.value)]
        for layer in todo:
            look_up_mask(model, layer, self.value)
        if todo:
            model.changed()
            renew_shapes(model)
        terms = look_up_terms(model.graph, self.value)
        if not todo and not terms:
            done = "every layer's mask is looked up already" if masked else "no layer is proven to read a mask"
            return Change(0, done + "".join(reasons))
        model.changed()
        renew_shapes(model)
        if terms:
            reasons = [f"; looked up, too: {plural(terms, 'other term')} of the mask"]
        note = f"{self.value:g} at padding in {plural(len(todo), 'layer')}, looked up once{''.join(reasons)}"
        return Change(len(todo) + terms, note)


def is_looked_up(model: Model, layer: Layer, value: float) -> bool:
    """Whether the scores of `layer` get the looked-up bias and the attention is plain otherwise."""
    roles, mask = _sources(model, layer)
    region = nodes_between([*roles, mask], model.graph.tensors()[layer.context])
    tables = [values for node in region if node.op == "Gather" and (values := constant(node.inputs[0])) is not None]
    floats = [table for table in tables if table.dtype.kind == "f"]
    plain = {node.op for node in region} <= PLAIN
    return plain and any(np.array_equal(table, bias_table(value, table.dtype)) for table in floats)


def look_up_mask(model: Model, layer: Layer, value: float) -> None:
    """Write the attention of `layer` with standard operators and the looked-up bias."""
    assert layer.form is not None
    roles, mask = _sources(model, layer)
    if mask.dtype is not None and np.dtype(mask.dtype).kind != "i":
        raise PassError(f"mask-bias: mask {mask.name!r} is {np.dtype(mask.dtype)}; int32 or int64 was needed")
    build = Builder(model.graph, f"layer.{layer.index}/attention")
    context = emit_attention(build, "standard", roles, layer.query.d_out, layer.heads, layer.form.scale, mask)
    softmax = next(node for node in nodes_between([*roles, mask], context) if node.op == "Softmax")
    masked = producer(softmax.inputs[0])
    assert masked is not None
    masked.inputs[1] = emit_bias(build, mask, value, float_type(roles[0]))
    redirect(model.graph, model.graph.tensors()[layer.context], context)


def _sources(model: Model, layer: Layer) -> tuple[list[gs.Tensor], gs.Tensor]:
    """Query, key and value of a layer that is proven to read a mask, and that mask."""
    assert layer.form is not None
    assert layer.form.mask is not None
    tensors = model.graph.tensors()
    return [tensors[linear.result] for linear in (layer.query, layer.key, layer.value)], tensors[layer.form.mask]
