"""Every number that positions meet is found, whatever it is compared, shifted or cut with."""

from collections.abc import Callable

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from random_encoders import encoder, random_kind

from onnxslim_bert.arrays import Array
from onnxslim_bert.graph.edit import Builder
from onnxslim_bert.model.horizon import Horizon, horizon
from onnxslim_bert.model.token_masks import masks

FLOAT = onnx.TensorProto.FLOAT


class Places:
    """Nodes that begin with the places of tokens."""

    def __init__(self) -> None:
        self.graph = gs.Graph(opset=17)
        self.build = Builder(self.graph, "")
        size = self.node("Shape", gs.Variable("scores", np.dtype(np.float32), ["a", "b"]), start=-1)
        self.size = self.node("Squeeze", size, np.array([0]))
        self.row = self.node("Range", np.array(0), self.size, np.array(1))
        self.column = self.node("Unsqueeze", self.row, np.array([1]))
        self.apart = self.node("Sub", self.row, self.column)

    def node(self, op: str, *inputs: gs.Tensor | Array, **attributes: object) -> gs.Tensor:
        tensors = [x if isinstance(x, gs.Tensor) else self.build.constant("number", x) for x in inputs]
        return self.build.node(op, op.lower(), tensors, **attributes)

    def met(self, target: gs.Tensor) -> Horizon | str:
        return horizon(self.graph.nodes, target, lambda _: True)


def number(value: float, kind: type = np.int64) -> Array:
    return np.array(value, kind)


CASES: dict[str, tuple[Callable[[Places], gs.Tensor], int]] = {
    "a window": (lambda p: p.node("Greater", p.node("Abs", p.apart), number(64)), 64),
    "a window in floats": (lambda p: p.node("Less", p.node("Cast", p.apart, to=FLOAT), number(8, np.float32)), 8),
    "a shifted window": (lambda p: p.node("GreaterOrEqual", p.node("Add", p.row, number(12)), p.column), 12),
    "blocks": (lambda p: p.node("Equal", *(p.node("Div", x, number(16)) for x in (p.row, p.column))), 16),
    "a stride": (lambda p: p.node("Equal", p.node("Mod", p.apart, number(5)), number(0)), 5),
    "clipped distances": (lambda p: p.node("Where", p.node("Less", p.apart, number(-30)), number(1), number(0)), 30),
    "no limit": (lambda p: p.node("Less", p.apart, number(1 << 20)), 0),
    "the sign of a mask's bias": (
        lambda p: p.node("Mul", p.node("Cast", p.node("Less", p.apart, number(9)), to=FLOAT), number(-1e4, np.float32)),
        9,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_numbers_are_found(case):
    """And taken times what positions are divided by, so that the probe is never too short."""
    places = Places()
    make, least = CASES[case]
    met = places.met(make(places))
    assert isinstance(met, Horizon)
    assert met.number >= least
    if least in (64, 8, 12, 30, 9):
        assert met.number == least
        assert met.lengths == [2 * least + 3]


def test_a_table_of_positions_is_as_long_as_a_probe_must_be():
    places = Places()
    table = np.zeros((40, 3), np.float32)
    bucket = places.node("Min", places.node("Abs", places.apart), number(39))
    met = places.met(places.node("Gather", table, bucket))
    assert met == Horizon(39, 40)
    stored = places.node(
        "Slice", np.ones((50, 50), bool), np.array([0]), places.node("Unsqueeze", places.size, np.array([0]))
    )
    assert places.met(stored) == Horizon(0, 50)


@pytest.mark.parametrize("op", ["Log", "Cos", "Sqrt", "Exp"])
def test_what_bends_positions_is_not_accounted_for(op):
    places = Places()
    met = places.met(places.node(op, places.node("Cast", places.apart, to=FLOAT)))
    assert isinstance(met, str)
    assert op in met


def test_what_gives_only_a_shape_meets_nothing():
    places = Places()
    far = places.node("Greater", places.apart, number(64))
    shape = places.node("Shape", places.node("Where", far, number(1), number(0)))
    assert places.met(places.node("ConstantOfShape", shape)) == Horizon(0, 0)


@pytest.mark.parametrize("pad", [0, 1])
def test_a_mask_made_of_ids_hides_the_one_that_stands_for_padding(pad):
    """The tensors that are 0 at padding are masks, the one that is 1 there is none, and neither are the ids."""
    kind = next(kind for seed in range(200) if (kind := random_kind(seed)).mask == "ids" and kind.pad == pad)
    model = encoder(kind)
    found = masks(model.graph)
    assert {mask.tensor.inputs[0].op for mask in found} == {"Not", "Cast"}


def test_a_mask_that_is_given_is_one_and_ids_are_none():
    kind = next(kind for seed in range(200) if (kind := random_kind(seed)).mask == "input")
    assert [mask.tensor.name for mask in masks(encoder(kind).graph)] == ["attention_mask"]
