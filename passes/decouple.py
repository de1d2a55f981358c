"""Let lower layers read the two texts of a pair apart, so that the states of one can be kept."""

from dataclasses import dataclass
from typing import ClassVar

from onnxslim_bert.errors import PassError
from onnxslim_bert.graph.edit import redirect
from onnxslim_bert.graph.probe import float_type
from onnxslim_bert.model.layer_words import unproven
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.write_attention import attention_style, emit_attention
from onnxslim_bert.rewriting.contract import Change, Context, Pass
from onnxslim_bert.rewriting.marks import DECOUPLED, UNPADDED
from onnxslim_bert.rewriting.pairs.two_texts import TwoTexts, type_input
from onnxslim_bert.wording import plural


@dataclass(frozen=True)
class Decouple(Pass):
    """Let the lower layers read question and passage, the two texts of a pair, apart; the layers above read both.

    Below the cut a token attends to tokens of its own text only (those of the same token type), and the passage's
    positions begin at `start`, however long the question is. So a passage's states do not depend on the question: they
    can be computed once and kept. `onnxslim split` writes such a file as two, a passage encoder and the rest.

    Answers change, the more the more layers: `distill` behind it heals. Only for models that take token types and whose
    attention is proven.

    layers: how many read the texts apart, from the first one on; 0 does nothing.
    start: the position of the passage's first token: about as many tokens as a question has, [CLS] and [SEP] included.
        Positions beyond the last row of the table are the last.

    Cao et al. 2020 (DeFormer), https://arxiv.org/abs/2005.00697
    """

    name: ClassVar[str] = "decouple"
    layers: int = 1
    start: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        for option in ("layers", "start"):
            if (value := getattr(self, option)) < 0:
                raise PassError(f"decouple: {option}={value} is less than 0")

    def apply(self, model: Model, ctx: Context) -> Change:
        count = len(model.encoder.layers)
        if self.layers >= count:
            raise PassError(f"decouple: layers={self.layers} of {count} leaves none that reads both texts; give fewer")
        if not self.layers:
            return Change(0, "layers=0: every layer reads both texts")
        if reason := why_not(model, self.layers):
            return Change(0, reason)
        rows = len(model.array(str(model.encoder.embeddings.position)))
        if self.start >= rows:
            raise PassError(f"decouple: start={self.start} of {rows} positions leaves none for a passage; give fewer")
        texts = TwoTexts(model, self.start)
        layers = model.encoder.layers[: self.layers]
        texts.number()
        for layer in layers:
            assert layer.form is not None
            tensors = model.graph.tensors()
            old = tensors[layer.context]
            roles = [tensors[linear.result] for linear in (layer.query, layer.key, layer.value)]
            mask = tensors[layer.form.mask] if layer.form.mask else None
            form = (layer.query.d_out, layer.heads, layer.form.scale, mask, texts.apart(float_type(roles[0])))
            redirect(model.graph, old, emit_attention(texts.build, attention_style(old), roles, *form))
        model.changed()
        return Change(
            self.layers,
            f"{plural(self.layers, 'layer')} of {count} read the two texts apart; passages have positions from "
            f"{self.start} on, each its own up to {rows - self.start} tokens",
        )


def why_not(model: Model, layers: int) -> str:
    """Why the first `layers` cannot read the two texts apart; empty when they can."""
    encoder = model.encoder
    if DECOUPLED.is_in(model.graph):
        return "lower layers read the two texts apart already"
    if UNPADDED.is_in(model.graph):
        return "the model is unpadded, and a batch is no longer rows of tokens; decouple before `unpad`"
    if type_input(model) is None:
        return "the model takes no token types, which say where the second text begins"
    for where, reason in unproven(encoder.layers[:layers]):
        return f"attention of {where} is not proven: {reason}"
    return TwoTexts.unnumbered(model)
