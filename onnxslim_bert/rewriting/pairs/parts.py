"""A decoupled model as two: what encodes a passage, and what answers for a question and an encoded passage."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from onnxslim_bert.errors import PassError
from onnxslim_bert.graph.edit import Builder, redirect
from onnxslim_bert.graph.probe import float_type, nodes_between, read_by
from onnxslim_bert.model.attention_region import attention_region
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.stream import stream_behind
from onnxslim_bert.model.write_attention import attention_style, emit_attention
from onnxslim_bert.rewriting.marks import DECOUPLED, EARLY_EXIT, UNPADDED
from onnxslim_bert.rewriting.pairs.two_texts import type_input

STATES, PASSAGE_MASK = "passage_states", "passage_mask"  # inputs of the joint part


@dataclass(frozen=True)
class PairParts:
    """passage: ids and mask of passages [batch, passage] -> STATES [batch, passage, hidden].

    joint: ids and mask of questions [batch or 1, question], STATES and PASSAGE_MASK [batch, passage] -> the answers of
    the whole model; one question serves all passages of the batch. Answers a token are those of the question, padding
    included, then those of the passage. layers: how many the passage encoder has.
    """

    passage: Model
    joint: Model
    layers: int


def pair_parts(model: Model) -> PairParts:
    """The two parts of `model`, in which `decouple` keeps the texts of a pair apart. Raises PassError."""
    layers = kept_apart(model)
    types = type_input(model)
    if types is None or not layers:
        raise PassError("no layers read the two texts of a pair apart; run `slim -p decouple` first")
    if UNPADDED.is_in(model.graph) or EARLY_EXIT.is_in(model.graph):
        raise PassError("a batch is no longer rows of tokens; split the model before `unpad` and `early-exit`")
    if any(isinstance(axis, int) for tensor in model.graph.inputs for axis in tensor.shape or (0,)):
        raise PassError("the inputs have fixed shapes, and the two texts are of any length; split before `fix-shapes`")
    mask = model.graph.tensors()[model.encoder.mask] if model.encoder.mask else None
    stream = stream_behind(model.graph, model.encoder.layers, layers - 1, model.graph.inputs, model.graph.outputs)
    if isinstance(stream, str):
        raise PassError(f"{stream}; split the model before the step that wrote this")
    if mask is not None and mask.inputs:
        raise PassError(f"the mask {mask.name!r} is made of token ids, and the joint part has none of the passage")
    cut = _Cut(model, stream.name, types.name, None if mask is None else mask.name)
    passage = cut.lower(second=True)
    passage.graph.outputs[0].name = STATES
    return PairParts(passage, cut.joint(), layers)


def kept_apart(model: Model) -> int:
    """How many layers read the texts apart, from the first one on."""
    layers = reversed(model.encoder.layers if DECOUPLED.is_in(model.graph) else ())
    regions = ((layer.index, attention_region(model.graph, layer).nodes) for layer in layers)
    return next((index + 1 for index, nodes in regions if any(map(DECOUPLED.is_on, nodes))), 0)


@dataclass(frozen=True)
class _Cut:
    """Where a model is cut. stream, types, mask: names of tensors."""

    model: Model
    stream: str
    types: str
    mask: str | None

    def lower(self, *, second: bool) -> Model:
        """The layers below the cut for passages (second) or questions alone: nothing is left that kept them apart."""
        part = self.model.clone()
        graph, tensors = part.graph, part.graph.tensors()
        ids, types, states = (tensors[name] for name in (str(part.encoder.embeddings.ids), self.types, self.stream))
        build = Builder(graph, types.name)
        number = build.constant("number", np.array(int(second), types.dtype))
        redirect(graph, types, build.node("Expand", "all", [number, build.node("Shape", "shape", [ids])]))
        states.dtype, states.shape = float_type(states), [*ids.shape, part.encoder.hidden]
        graph.outputs = [states]
        part.changed()
        for layer in part.encoder.layers:
            if layer.form is not None:
                tensors = graph.tensors()
                old = tensors[layer.context]
                roles = [tensors[linear.result] for linear in (layer.query, layer.key, layer.value)]
                mask = tensors[layer.form.mask] if layer.form.mask else None
                build = Builder(graph, f"layer.{layer.index}/alone")
                form = (layer.query.d_out, layer.heads, layer.form.scale, mask)
                redirect(graph, old, emit_attention(build, attention_style(old), roles, *form))
        part.changed()
        graph.inputs = [tensor for tensor in graph.inputs if tensor.outputs]
        return part

    def joint(self) -> Model:
        """The lower layers for questions, and all that lies above the cut."""
        made = self.model.clone()
        graph, tensors = made.graph, made.graph.tensors()
        stream, ids, types = (tensors[name] for name in (self.stream, str(made.encoder.embeddings.ids), self.types))
        _check_unread(graph, stream, [ids, types])
        question = self.lower(second=False).graph
        build = Builder(graph, "joint")
        one, states = build.constant("one", np.ones(1, np.int64)), gs.Variable(STATES, float_type(stream))
        states.shape = ["passages", "passage", made.encoder.hidden]
        passages = build.node("Shape", "passages", [states], start=0, end=1)

        def behind(asked: gs.Tensor, passage: gs.Tensor) -> gs.Tensor:
            """Both in one row; one question serves all passages."""
            shape = build.node("Concat", "shape", [passages, *[one] * (len(passage.shape) - 1)], axis=0)
            return build.node("Concat", "both", [build.node("Expand", "question", [asked, shape]), passage], axis=1)

        both = behind(question.outputs[0], states)
        redirect(graph, stream, both)
        size = build.node("Shape", "size", [both], start=0, end=2)
        for tensor in (ids, types):
            zero = build.constant("zero", np.array(0, tensor.dtype))
            redirect(graph, tensor, build.node("Expand", "shaped", [zero, size]))
        given = [*question.inputs, states]
        if self.mask is not None:
            mask = gs.Variable(PASSAGE_MASK, tensors[self.mask].dtype, ["passages", "passage"])
            asked = next(tensor for tensor in question.inputs if tensor.name == self.mask)
            redirect(graph, tensors[self.mask], behind(asked, mask))
            given.append(mask)
        for tensor in question.inputs:
            tensor.shape = ["questions", "question"]
        graph.inputs = given
        _add(graph, question)
        made.changed()
        return made


def _check_unread(graph: gs.Graph, stream: gs.Tensor, tensors: Sequence[gs.Tensor]) -> None:
    """Raise PassError where what lies above `stream` reads more of `tensors` than their shape."""
    for target in graph.outputs:
        for node in nodes_between([stream, *graph.inputs], target):
            name = next(
                (one.name for one in tensors if node.op != "Shape" and any(one is t for t in read_by(node))), ""
            )
            if name:
                raise PassError(
                    f"node {node.name!r} ({node.op}), which {target.name!r} needs above the cut, reads {name!r}; "
                    "run `fuse` before, behind which layers read states and mask alone"
                )


def _add(graph: gs.Graph, other: gs.Graph) -> None:
    """Give `graph` the nodes of `other` under names of their own; constants that both have are stored once."""
    constants = {name: tensor for name, tensor in graph.tensors().items() if isinstance(tensor, gs.Constant)}
    for node in other.nodes:
        node.name = f"question/{node.name}"
        for tensor in node.outputs:
            tensor.name = tensor.name and f"question/{tensor.name}"
        for i, tensor in enumerate(node.inputs):
            known = constants.get(tensor.name) if isinstance(tensor, gs.Constant) else None
            if known is not None and np.array_equal(known.values, tensor.values):
                node.inputs[i] = known
            elif known is not None:
                tensor.name = f"question/{tensor.name}"
    graph.nodes.extend(other.nodes)
