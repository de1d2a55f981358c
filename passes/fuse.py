"""Write norms, activations and attention as single nodes, whichever exporter wrote the file."""

from dataclasses import dataclass
from typing import ClassVar

from onnxslim_bert.errors import NoEncoderError
from onnxslim_bert.graph.edit import Builder, redirect
from onnxslim_bert.graph.probe import constant, producer
from onnxslim_bert.model.biased_attention import biased_attention
from onnxslim_bert.model.distances import look_up_by_distance
from onnxslim_bert.model.encoder import Layer
from onnxslim_bert.model.gelu_form import fuse_gelus
from onnxslim_bert.model.layer_words import unproven
from onnxslim_bert.model.norm_form import find_norms
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.write_attention import Style, emit_attention
from onnxslim_bert.rewriting.contract import Change, Context, Pass
from onnxslim_bert.rewriting.weights.output_scales import fold_output_scales
from onnxslim_bert.wording import counted


@dataclass(frozen=True)
class Fuse(Pass):
    """Write norms, activations and attention in the form that runs fastest.

    Each piece is recognised by what it computes, not by its names, so outputs stay within 1e-5 of the original. Rows
    without a real token, which attend to nothing, may answer otherwise.

    Attention whose scores have something added that does not depend on query and key (relative positions, a window, a
    causal mask) becomes one node in the style contrib, which adds the same tensor; what makes it stays as it is. Rotary
    positions are one more node for each of query and key. In long rows a window is computed block by block.

    Scores that are looked up by the distance of two tokens (DeBERTa's positions) are computed for the distances that a
    text has, and read off the diagonals of that product, in the style contrib.

    A constant factor of what a matrix adds to the stream (LayerScale) becomes part of the matrix.

    Residual sums become `Sum` nodes. ONNX Runtime would fuse an `Add` and the norm behind it to SkipLayerNormalization,
    which its CPU provider runs slower than the two apart, and a file cannot switch that off.

    style: contrib uses com.microsoft operators (CPU provider); standard stays within the ONNX operator set.
    """

    name: ClassVar[str] = "fuse"
    exact: ClassVar[float | None] = 1e-5
    style: Style = "contrib"

    def apply(self, model: Model, ctx: Context) -> Change:
        before = len(model.graph.nodes)
        norms = fuse_norms(model)
        gelus = fuse_gelus(model, self.style)
        attentions, reasons = fuse_attention(model, self.style)
        distances = fuse_distances(model) if self.style == "contrib" else 0
        scales = fold_output_scales(model)
        sums = part_residual_sums(model)
        done = {"norm": norms, "activation": gelus, "attention": attentions, "scale": scales, "residual sum": sums}
        done["distance lookup"] = distances
        note = f"{counted(done)}; {before} nodes became {len(model.graph.nodes)}"
        return Change(sum(done.values()), note + "".join(f"; left as it is: {reason}" for reason in reasons))


def fuse_norms(model: Model) -> int:
    """One LayerNormalization node for each norm in elementary operators."""
    build = Builder(model.graph, "")
    forms = find_norms(model.graph)
    for form in forms:
        norm = build.node(
            "LayerNormalization",
            f"{form.target.name}/norm",
            [form.source, form.gamma, form.beta],
            axis=-1,
            epsilon=form.epsilon,
        )
        redirect(model.graph, form.target, norm)
    model.changed()
    return len(forms)


def fuse_attention(model: Model, style: Style) -> tuple[int, list[str]]:
    """Rewrite in `style` the attention of each layer whose form is proven.

    Returns how many were rewritten, and why others were left as they are: a reason once, with the layers that have it.
    """
    count, left = 0, list[Layer]()
    try:
        layers = model.encoder.layers
    except NoEncoderError as error:
        return 0, [f"attention: {error}"]
    for layer in layers:
        tensors = model.graph.tensors()
        old = tensors[layer.context]
        above = producer(old)
        if style == "contrib" and above is not None and above.op == "MultiHeadAttention":
            left.append(layer)
            continue
        roles = [tensors[linear.result] for linear in (layer.query, layer.key, layer.value)]
        build = Builder(model.graph, f"layer.{layer.index}/attention")
        if layer.form is not None:
            mask = tensors[layer.form.mask] if layer.form.mask else None
            context = emit_attention(build, style, roles, layer.query.d_out, layer.heads, layer.form.scale, mask)
        elif style == "contrib" and (biased := biased_attention(model.graph, layer)) is not None:
            context = biased.write(build, roles, layer.heads, layer.head_dim)
        else:
            left.append(layer)
            continue
        redirect(model.graph, old, context)
        model.changed()
        count += 1
    return count, [f"attention of {where}: {reason}" for where, reason in unproven(left)]


def fuse_distances(model: Model) -> int:
    """Multiply with the distances that a text has instead of all that the table of positions has."""
    count = look_up_by_distance(model.graph)
    model.changed()
    return count


def part_residual_sums(model: Model) -> int:
    """Write each sum of two activations before a norm as `Sum`."""
    count = 0
    for node in model.graph.nodes:
        above = producer(node.inputs[0]) if node.op == "LayerNormalization" else None
        if above is not None and above.op == "Add" and all(constant(t) is None for t in above.inputs):
            above.op = "Sum"
            count += 1
    model.changed()
    return count
