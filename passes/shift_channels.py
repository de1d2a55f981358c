"""Bring the channels that dense layers read around zero, where int8 has one range for all of them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.observers import Want
from onnxslim_bert.graph.probe import producer
from onnxslim_bert.model.dense import dense_layers, encoder_of
from onnxslim_bert.model.linear import Linear
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.rewriting.contract import Change, Context, Pass
from onnxslim_bert.wording import plural

PAYS = 0.99  # a range becomes this share of what it was, or less


@dataclass(frozen=True)
class ShiftChannels(Pass):
    """Take the middle of its range off each channel that dense layers read, and add it again in biases.

    One range holds all channels of an input in int8. Example: a channel between 3 and 5 beside others between -1 and 1
    asks for -1 to 5; around its middle, 4, all lie between -1 and 1, and a level is a third as wide.

    It costs nothing at run time. The middles z [d_in] are taken off the beta of a norm; or off value's bias, where the
    result of attention is read, because the weights of its mix add up to 1. Each dense layer that reads the input adds
    z @ weight to its bias, and where a residual sum reads it, the dense layer that is summed adds z to its own. An
    input stays as it is where another node reads it, where a bias is missing or shared, and where its range would not
    become smaller. Run it before `first-token`, which selects from what the last layer reads, and before `smooth`.

    Wei et al. 2023, https://arxiv.org/abs/2304.09145 (Outlier Suppression+; its scales are those of `smooth`)
    """

    name: ClassVar[str] = "shift-channels"
    exact: ClassVar[float | None] = 1e-4
    empty_rows: ClassVar[bool] = True
    tokenwise: ClassVar[bool] = True

    def wants(self, model: Model) -> Iterable[Want]:
        return [Want(one.source, "channel-range", hard=True) for one in _inputs(model)]

    def apply(self, model: Model, ctx: Context) -> Change:
        shares = []
        for one in _inputs(model):
            low, high = ctx.stats[Want(one.source, "channel-range", hard=True)]
            share = float((high - low).max()) / max(float(high.max() - low.min()), 1e-30)
            if share > PAYS:
                continue
            middles = ((low + high) / 2).astype(np.float32)
            _add(model, one.home, -middles)
            for linear in one.readers:
                weight = model.array(linear.weight)
                _add(model, linear.bias, middles @ (weight.T if linear.trans_b else weight))
            for bias in one.sums:
                _add(model, bias, middles)
            shares.append(share)
        if not shares:
            return Change(0, "no input has channels whose shift biases could take, and a range that it makes smaller")
        model.changed()
        mean = float(np.exp(np.log(np.maximum(shares, 1e-30)).mean()))
        note = f"channels of {plural(len(shares), 'input')} shifted; their ranges are {mean:.2f} of what they were"
        return Change(len(shares), note, {"share": mean})


@dataclass(frozen=True)
class _Input:
    """A tensor whose channels can be shifted: `home` takes a shift off it; biases of `readers` and `sums` undo that."""

    source: str
    home: str
    readers: tuple[Linear, ...]
    sums: tuple[str, ...]


def _inputs(model: Model) -> list[_Input]:
    tensors, ends = model.graph.tensors(), {tensor.name for tensor in model.graph.outputs}
    encoder = encoder_of(model)
    values = {layer.context: layer.value for layer in encoder.layers} if encoder is not None else {}
    free = [x for x in dense_layers(model) if x.bias is not None and not x.factors and _is_own(tensors[x.bias])]
    by_node, by_result = {x.node: x for x in free}, {x.result: x for x in free if x.result not in ends}
    found = []
    for source in dict.fromkeys(linear.source for linear in free):
        tensor, dense = tensors[source], [x for x in free if x.source == source]
        home = _home(tensor, by_result.get(values[source].result) if source in values else None)
        others = [node for node in tensor.outputs if node.name not in by_node]
        sums = [_summed(node, tensor, by_result) for node in others]
        if home is not None and source not in ends and None not in sums:
            found.append(_Input(source, home, tuple(dense), tuple(bias for bias in sums if bias is not None)))
    return found


def _is_own(constant: gs.Tensor) -> bool:
    return isinstance(constant, gs.Constant) and len(constant.outputs) == 1 and constant.dtype == np.float32


def _home(tensor: gs.Tensor, value: Linear | None) -> str | None:
    """What takes a shift off: beta of the norm that writes `tensor`, or the bias of `value`, of which it is a mix."""
    node = producer(tensor)
    if node is not None and node.op == "LayerNormalization" and len(node.inputs) > 2 and _is_own(node.inputs[2]):
        return str(node.inputs[2].name)
    if value is None or node is None or node.op != "MultiHeadAttention" or node.inputs[2].name != value.result:
        return None
    return value.bias if len(node.inputs[2].outputs) == 1 else None


def _summed(node: gs.Node, tensor: gs.Tensor, by_result: dict[str, Linear]) -> str | None:
    """The bias of a dense layer that `node` adds to `tensor`, and that nothing else reads; None where there is none."""
    if node.op not in ("Add", "Sum") or sum(term is tensor for term in node.inputs) != 1:
        return None
    added = [by_result[term.name] for term in node.inputs if term.name in by_result and len(term.outputs) == 1]
    return added[0].bias if added else None


def _add(model: Model, constant: str | None, values: Array) -> None:
    assert constant is not None
    model.replace(constant, model.array(constant) + values.astype(np.float32))
