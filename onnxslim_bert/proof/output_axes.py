"""What lies along each axis of a model's outputs, and how wide its encoder is: seen in the graph and in one batch."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import onnx

from onnxslim_bert.arrays import Array
from onnxslim_bert.graph.signature import fed_inputs

INTEGERS = (onnx.TensorProto.INT32, onnx.TensorProto.INT64)
Axis = int | Literal["rows", "tokens"]
FEWEST_OF_HIDDEN = 4  # constants of one width from which it is taken for the encoder's


@dataclass(frozen=True)
class Output:
    """One output of a model. dtype: numpy's letter of its kind; axes: each is "rows", "tokens" or a width, in order."""

    dtype: str
    axes: tuple[Axis, ...]


def seen_outputs(graph: onnx.GraphProto, answers: Mapping[str, Array], length: int) -> dict[str, Output]:
    """Every output by name. answers: of the model in `graph`, for one batch of texts of `length` tokens."""
    declared = {value.name: _sizes(value) for value in graph.output}
    is_fixed = any(len(_sizes(value)) == 2 and _sizes(value)[1] for value in fed_inputs(graph))
    seen = {
        name: Output(values.dtype.kind, _axes(values.shape, declared.get(name, ()), length, is_fixed))
        for name, values in answers.items()
    }
    pairs = [name for name, output in seen.items() if output.dtype == "f" and output.axes[1:] == (length,)]
    if is_fixed and len(pairs) > 1:  # two classifiers of as many classes as there are tokens are rarer than one reader
        seen |= dict.fromkeys(pairs, Output("f", ("rows", "tokens")))
    if reads_parts(graph):  # they lie between rows and width
        seen = {
            name: replace(x, axes=("rows", "tokens", x.axes[2])) if len(x.axes) == 3 else x for name, x in seen.items()
        }
    return seen


def reads_parts(graph: onnx.GraphProto) -> bool:
    """Whether it reads an image or a sound, and its states are those of patches or frames: no input holds integers."""
    types = [value.type.tensor_type.elem_type for value in fed_inputs(graph)]
    return bool(types) and not any(of in INTEGERS for of in types)


def hidden_width(graph: onnx.GraphProto, answers: Mapping[str, Array] | None = None) -> int:
    """The width of the encoder in `graph`: of most vectors of weights (norms and biases); 0 without them.

    answers: its outputs. One that is wider and as wide as many such vectors, those of heads, is as wide as the encoder
    was before its stream became narrower (`prune-hidden`), and that width is taken. The few vectors of a quantized head
    (bias, scales, zero points) are not many.
    """
    widths = [tensor.dims[0] for tensor in graph.initializer if len(tensor.dims) == 1]
    most = max(set(widths) - {1}, key=widths.count, default=0)
    many = max(FEWEST_OF_HIDDEN, widths.count(most) / 4)
    answered = [values.shape[-1] for values in (answers or {}).values() if values.ndim > 1]
    if whole := next((width for width in answered if width > most and widths.count(width) >= many), 0):
        return int(whole)
    return int(most) if widths.count(most) >= FEWEST_OF_HIDDEN else 0


def _sizes(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    """The sizes that the graph declares; 0 where an axis is open."""
    return tuple(axis.dim_value for axis in value.type.tensor_type.shape.dim)


def _axes(shape: tuple[int, ...], declared: tuple[int, ...], length: int, is_fixed: bool) -> tuple[Axis, ...]:
    """What each axis of an output is. An axis as long as the text is one of tokens, unless the graph fixes it."""
    said = declared if len(declared) == len(shape) else (0,) * len(shape)
    axes: list[Axis] = ["rows"] if shape else []
    for place, size in enumerate(shape[1:], start=1):
        is_tokens = size == length and (not said[place] or (is_fixed and len(shape) > 2 and place == 1))
        axes.append("tokens" if is_tokens else size)
    return tuple(axes)
