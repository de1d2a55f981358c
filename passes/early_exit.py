"""Let texts that are easy have their answer before the last layer."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.errors import PassError
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.rewriting.contract import Change, Context, Pass
from onnxslim_bert.rewriting.exits.heads import Head, fit_head
from onnxslim_bert.rewriting.exits.leaving_rows import LeavingRows
from onnxslim_bert.rewriting.exits.states import mean_states
from onnxslim_bert.rewriting.exits.thresholds import Exits, certainty_of, choose_exits, exits_at, fewest_rows
from onnxslim_bert.rewriting.marks import UNPADDED
from onnxslim_bert.rewriting.options import Numbers, check_each_once, write_option


@dataclass(frozen=True)
class EarlyExit(Pass):
    """Let texts that an earlier layer is sure of leave there; the layers behind it do not run for them.

    An exit is a dense layer on the mean over a text's tokens, fitted to what the last layer answers (ridge regression,
    on texts without labels). A text leaves with its answer where the softmax of it gives a class enough probability.
    Each text leaves by itself: its answer and its exit are the same alone and in any batch, and layers behind an exit
    work on the texts that are left, which may be none: MultiHeadAttention takes that from onnxruntime 1.29 on, wherever
    the file is to run.

    Only for models whose one output is logits [batch, classes]. Latency then depends on the text, so it is measured on
    real ones. It comes last, behind `fuse` and whatever quantizes: `drop` holds for the model as it is then.

    after: the layers behind which texts may leave, counted from 0; without any, up to three are chosen with which texts
        pass the fewest layers.
    drop: the share of all texts that may get another class than from the last layer, in expectation. Exits share it
        evenly. How sure a text must be is decided on texts that the head was not fitted on; with n exits, n / drop
        texts are needed. Example: 299 for drop=0.01 and three exits.
    certainty: the probability itself, for exits named by `after`; 0 decides by `drop`.
    texts: how many are learnt from: those of --corpus, or else the calibration rows.

    Xin et al. 2020 (DeeBERT), https://arxiv.org/abs/2004.12993; Liu et al. 2020 (FastBERT),
    https://arxiv.org/abs/2004.02178
    """

    name: ClassVar[str] = "early-exit"
    after: Numbers = ()
    drop: float = 0.01
    certainty: float = 0.0
    texts: int = 4000

    def __post_init__(self) -> None:
        super().__post_init__()
        check_each_once("early-exit", "after", self.after)
        if not 0 < self.drop < 1:
            raise PassError(f"early-exit: drop={self.drop} is not in (0, 1)")
        if self.certainty and not 0 < self.certainty < 1:
            raise PassError(f"early-exit: certainty={self.certainty} is not in (0, 1)")
        if self.certainty and not self.after:
            raise PassError("early-exit: certainty is that of exits which `after` names; give after=2, for instance")
        if self.certainty and self.drop != type(self).drop:
            raise PassError("early-exit: certainty and drop each say how sure a text must be; give one of them")
        if self.texts < 1:
            raise PassError(f"early-exit: texts={self.texts} is less than 1")

    @property
    def measures(self) -> bool:
        return True

    def apply(self, model: Model, ctx: Context) -> Change:
        layers = model.encoder.layers
        if reason := _why_not(model):
            return Change(0, reason)
        if max(self.after, default=0) > len(layers) - 2:
            last = f"layer {len(layers) - 2}, the last that has another behind it (counted from 0)"
            raise PassError(f"early-exit: after={write_option(self.after)} goes beyond {last}")
        places = sorted(self.after) or list(range(len(layers) - 1))
        states, answers = mean_states(model, places, ctx.trials, self.texts)
        if isinstance(answers, str):
            return Change(0, answers)
        fewest = fewest_rows(self.drop / max(len(self.after), 1))
        if not self.certainty and len(answers) < fewest:
            raise PassError(
                f"early-exit: drop={self.drop:g} is decided on {fewest} texts or more, and there are {len(answers)}; "
                "give --corpus, more --rows, or a larger drop"
            )
        heads, sure, wrong = dict[int, Head](), dict[int, Array](), dict[int, Array]()
        for layer in places:
            heads[layer], unseen = fit_head(states[layer], answers)
            sure[layer] = certainty_of(unseen)
            wrong[layer] = unseen.argmax(1) != answers.argmax(1)
        if self.certainty:
            exits = exits_at(dict.fromkeys(places, self.certainty), sure, wrong, len(layers))
        else:
            exits = choose_exits(sure, wrong, len(layers), self.drop, self.after)
        if not exits.certainties:
            return Change(0, f"of {len(answers)} texts none could leave behind an earlier layer; give a larger drop")
        leaving = LeavingRows(model)
        for layer, certainty in exits.certainties.items():
            leaving.leave(layers[layer], heads[layer], certainty)
        leaving.finish()
        model.changed()
        return Change(len(exits.certainties), _told(exits, len(answers), len(layers)), {"depth": exits.depth})


def _told(exits: Exits, texts: int, layers: int) -> str:
    left = ", ".join(
        f"{100 * share:.0f} % behind layer {layer} (from {exits.certainties[layer]:.3f})"
        for layer, share in exits.left.items()
    )
    return (
        f"of {texts} texts leave {left}; they pass {exits.depth:.2f} of {layers} layers on average, and "
        f"{100 * exits.changed:.2f} % get another class"
    )


def _why_not(model: Model) -> str:
    """Why texts cannot leave this model early, as far as its graph says it; empty when they can."""
    if len(model.encoder.layers) < 2:
        return "the encoder has 1 layer, and none is left out behind it"
    if model.array(model.encoder.layers[0].query.weight).dtype == np.float16:
        return "the model is float16; run early-exit before `float16`"
    if UNPADDED.is_in(model.graph):
        return "the model is unpadded, and a batch is no longer rows of tokens; leave `unpad` out"
    if len(model.graph.outputs) != 1:
        names = ", ".join(repr(tensor.name) for tensor in model.graph.outputs)
        return f"an exit answers logits [batch, classes] alone, and the outputs are {names}"
    for tensor in model.graph.inputs:
        if tensor.shape is None or len(tensor.shape) != 2:
            return f"input {tensor.name!r} is not [batch, seq]"
        if isinstance(tensor.shape[0], int):
            return f"the batch is fixed to {tensor.shape[0]}, and behind an exit there are fewer rows"
    return ""
