"""Encoders made at random, of the kinds that zoos hold, in the words of exporters."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxslim_bert.arrays import Array
from onnxslim_bert.graph.edit import Builder
from onnxslim_bert.model.onnx_model import Model

VOCABULARY, POSITIONS, HIDDEN, HEADS, SIZE, NEURONS, LAYERS = 31, 80, 12, 4, 4, 20, 2
WIDTH = HEADS * SIZE
LOW = -1e9
CHOICES: dict[str, tuple[Any, ...]] = {
    "positions": ("table", "none"),
    "window": (0, 0, 3, 8, 20),
    "bias": ("none", "none", "none", "alibi", "table"),
    "rotary": (False, False, True),
    "groups": (HEADS, HEADS, 2, 1),
    "norm": ("layer", "rms"),
    "before": (False, True),
    "gate": ("none", "apart", "sliced", "split"),
    "packing": ("none", "side by side", "three", "heads"),
    "mask": ("input", "input", "ids", "none"),
    "pad": (0, 1),
    "head": ("first", "states", "mean"),
    "beside": ("",),
    "places": ("counted",),
}


@dataclass(frozen=True)
class Kind:
    """What an encoder is like.

    window: how far tokens see, 0 for any distance. groups: heads of key and value. beside: how the feed-forward
    stands beside the attention, reading the same norm of the stream: their results are added to it "in turn", or
    "together", as one sum. head: "ends" reads the first and the last token,
    of padded rows padding. places: "input" for a table of positions, or rotary ones, that `position_ids` [batch, seq]
    says.
    """

    positions: str
    window: int
    bias: str
    rotary: bool
    groups: int
    norm: str
    before: bool
    gate: str
    packing: str
    mask: str
    pad: int
    head: str
    beside: str = ""
    places: str = "counted"

    @property
    def is_plain(self) -> bool:
        """Whether attention is softmax(scale q kᵀ + mask) v."""
        return not self.window and self.bias == "none" and not self.rotary and self.groups == HEADS

    @property
    def is_biased(self) -> bool:
        """Whether attention is softmax(scale q kᵀ + B) v, B of more than the mask, or q and k turned."""
        return bool(self.window or self.bias != "none" or self.rotary) and self.groups == HEADS


def random_kind(seed: int) -> Kind:
    """A kind that `seed` decides; of about half of them, attention is plain."""
    rng = np.random.default_rng(seed)
    chosen = {name: values[int(rng.integers(len(values)))] for name, values in CHOICES.items()}
    if rng.integers(2):
        chosen |= {"window": 0, "bias": "none", "rotary": False, "groups": HEADS}
    if chosen["groups"] != HEADS:
        chosen["packing"] = "none"
    return Kind(**chosen)


def encoder(kind: Kind, seed: int = 0) -> Model:
    """A model of two layers, random weights, that takes `input_ids` and, with mask "input", `attention_mask`."""
    maker = _Maker(kind, np.random.default_rng(seed))
    return Model.from_proto(gs.export_onnx(maker.graph()))


class _Maker:
    def __init__(self, kind: Kind, rng: np.random.Generator) -> None:
        self.kind, self.rng = kind, rng
        self.gs = gs.Graph(opset=17)
        self.build = Builder(self.gs, "")

    def graph(self) -> gs.Graph:
        ids = gs.Variable("input_ids", np.dtype(np.int64), ["batch", "sequence"])
        self.gs.inputs = [ids]
        self.seq = self.node("Shape", ids, start=1, end=2)
        scalar = self.node("Squeeze", self.seq, np.array([0]))
        self.places = self.node("Range", np.array(0), scalar, np.array(1))
        self.bias = self.scores_bias(ids)
        if self.kind.places == "input":
            self.places = gs.Variable("position_ids", np.dtype(np.int64), ["batch", "sequence"])
            self.gs.inputs.append(self.places)
        state = self.node("Gather", self.weights(VOCABULARY, HIDDEN), ids)
        if self.kind.positions == "table":
            state = self.node("Add", state, self.node("Gather", self.weights(POSITIONS, HIDDEN), self.places))
        if not self.kind.before:
            state = self.norm(state)
        for _ in range(LAYERS if self.kind.beside else 0):
            read = self.norm(state)
            first, second, third = state, self.attention(read), self.feed_forward(read)
            if self.kind.beside == "together":
                first, third = third, first
            state = self.node("Add", self.node("Add", first, second), third)
        for _ in range(0 if self.kind.beside else LAYERS):
            for block in (self.attention, self.feed_forward):
                state = (
                    self.node("Add", state, block(self.norm(state)))
                    if self.kind.before
                    else self.norm(self.node("Add", block(state), state))
                )
        state = self.norm(state) if self.kind.before or self.kind.beside else state
        shapes = {"states": ["batch", "sequence", HIDDEN], "mean": ["batch", HIDDEN]}
        output = gs.Variable("output", np.dtype(np.float32), shapes.get(self.kind.head, ["batch", 5]))
        last = self.head(state)
        self.gs.nodes.append(gs.Node("Identity", "output", inputs=[last], outputs=[output]))
        self.gs.outputs = [output]
        self.gs.cleanup().toposort()
        return self.gs

    def node(self, op: str, *inputs: gs.Tensor | Array, **attributes: Any) -> gs.Tensor:
        tensors = [x if isinstance(x, gs.Tensor) else self.build.constant("number", x) for x in inputs]
        return self.build.node(op, op.lower(), tensors, **attributes)

    def weights(self, *shape: int) -> gs.Constant:
        values = self.rng.standard_normal(shape) / np.sqrt(shape[0] if len(shape) > 1 else 4)
        return self.build.constant("weight", values.astype(np.float32))

    def dense(self, x: gs.Tensor, d_out: int, d_in: int = HIDDEN) -> gs.Tensor:
        return self.node("Add", self.node("MatMul", x, self.weights(d_in, d_out)), self.weights(d_out))

    def norm(self, x: gs.Tensor) -> gs.Tensor:
        gamma = self.build.constant("gamma", (1 + 0.1 * self.rng.standard_normal(HIDDEN)).astype(np.float32))
        if self.kind.norm == "layer":
            return self.node("LayerNormalization", x, gamma, self.weights(HIDDEN), axis=-1, epsilon=1e-6)
        square = self.node("ReduceMean", self.node("Pow", x, np.float32(2)), axes=[-1])
        root = self.node("Sqrt", self.node("Add", square, np.float32(1e-6)))
        return self.node("Mul", self.node("Div", x, root), gamma)

    def scores_bias(self, ids: gs.Tensor) -> gs.Tensor | None:
        """What is added to the scores, [batch or 1, heads or 1, seq or 1, seq]."""
        parts: list[gs.Tensor] = []
        if self.kind.mask != "none":
            seen = gs.Variable("attention_mask", np.dtype(np.int64), ["batch", "sequence"])
            if self.kind.mask == "input":
                self.gs.inputs.append(seen)
            else:
                padding = self.node("Equal", ids, np.array(self.kind.pad))
                seen = self.node("Cast", self.node("Not", padding), to=onnx.TensorProto.INT64)
            real = self.node("Cast", self.node("Unsqueeze", seen, np.array([1, 2])), to=onnx.TensorProto.FLOAT)
            parts.append(self.node("Mul", self.node("Sub", np.float32(1), real), np.float32(LOW)))
        rows, columns = (self.node("Unsqueeze", self.places, np.array([axis])) for axis in (1, 0))
        apart = self.node("Abs", self.node("Sub", columns, rows))
        if self.kind.window:
            far = self.node("Greater", apart, np.array(self.kind.window))
            parts.append(self.node("Where", far, np.float32(LOW), np.float32(0)))
        if self.kind.bias == "alibi":
            slopes = (0.5 ** np.arange(1, HEADS + 1, dtype=np.float32)).reshape(HEADS, 1, 1)
            parts.append(self.node("Mul", self.node("Cast", apart, to=onnx.TensorProto.FLOAT), -slopes))
        elif self.kind.bias == "table":
            bucket = self.node("Min", apart, np.array(9))
            parts.append(self.node("Transpose", self.node("Gather", self.weights(10, HEADS), bucket), perm=[2, 0, 1]))
        total = None
        for part in parts:
            total = part if total is None else self.node("Add", total, part)
        return total

    def attention(self, x: gs.Tensor) -> gs.Tensor:
        shared = HEADS // self.kind.groups
        query, key, value = (
            self.turned(piece, n) for piece, n in zip(self.packed(x), (1, shared, shared), strict=True)
        )
        if self.kind.rotary:
            query, key = self.rotated(query), self.rotated(key)
        scaled = self.node("Mul", query, np.float32(SIZE**-0.5))
        scores = self.node("MatMul", scaled, self.node("Transpose", key, perm=[0, 1, 3, 2]))
        if self.bias is not None:
            scores = self.node("Add", scores, self.bias)
        mixed = self.node("MatMul", self.node("Softmax", scores, axis=-1), value)
        together = self.node("Reshape", self.node("Transpose", mixed, perm=[0, 2, 1, 3]), np.array([0, 0, WIDTH]))
        return self.dense(together, HIDDEN, WIDTH)

    def packed(self, x: gs.Tensor) -> list[gs.Tensor]:
        """Query, key and value, [batch, seq, heads, size] each; key and value may have fewer heads."""
        if self.kind.packing == "none":
            heads = (HEADS, self.kind.groups, self.kind.groups)
            return [self.node("Reshape", self.dense(x, n * SIZE), np.array([0, 0, n, SIZE])) for n in heads]
        product = self.dense(x, 3 * WIDTH)
        if self.kind.packing == "side by side":
            ends = [np.array([i * WIDTH]) for i in range(4)]
            pieces = [self.node("Slice", product, ends[i], ends[i + 1], np.array([2])) for i in range(3)]
            return [self.node("Reshape", piece, np.array([0, 0, HEADS, SIZE])) for piece in pieces]
        if self.kind.packing == "three":
            product = self.node("Reshape", product, np.array([0, 0, 3, HEADS, SIZE]))
            return [self.node("Gather", product, np.array(i), axis=2) for i in range(3)]
        product = self.node("Reshape", product, np.array([0, 0, HEADS, 3 * SIZE]))
        sizes = self.build.constant("sizes", np.full(3, SIZE, np.int64))
        return self.build.nodes("Split", "split", [product, sizes], 3, axis=3)

    def turned(self, x: gs.Tensor, shared: int) -> gs.Tensor:
        """[batch, seq, n, size] -> [batch, n * shared, seq, size], each of the n for `shared` heads."""
        x = self.node("Transpose", x, perm=[0, 2, 1, 3])
        if shared == 1:
            return x
        x = self.node("Unsqueeze", x, np.array([2]))
        x = self.node("Expand", x, np.array([1, 1, shared, 1, 1]))
        return self.node("Reshape", x, np.array([0, HEADS, -1, SIZE]))

    def rotated(self, x: gs.Tensor) -> gs.Tensor:
        """Su et al. 2021, https://arxiv.org/abs/2104.09864"""
        half = SIZE // 2
        rates = (10000.0 ** (-np.arange(half) / half)).astype(np.float32)[None]
        axes = np.array([1, 3] if self.kind.places == "input" else [1])
        places = self.node("Unsqueeze", self.node("Cast", self.places, to=onnx.TensorProto.FLOAT), axes)
        angles = self.node("Mul", places, np.concatenate([rates, rates], 1))
        last, ends = np.array([3]), (np.array([0]), np.array([half]), np.array([SIZE]))
        low, high = self.node("Slice", x, ends[0], ends[1], last), self.node("Slice", x, ends[1], ends[2], last)
        turned = self.node("Concat", self.node("Neg", high), low, axis=3)
        kept = self.node("Mul", x, self.node("Cos", angles))
        return self.node("Add", kept, self.node("Mul", turned, self.node("Sin", angles)))

    def feed_forward(self, x: gs.Tensor) -> gs.Tensor:
        if self.kind.gate == "none":
            return self.dense(self.silu(self.dense(x, NEURONS)), HIDDEN, NEURONS)
        if self.kind.gate == "apart":
            gate, up = self.dense(x, NEURONS), self.dense(x, NEURONS)
        elif self.kind.gate == "split":
            both = self.dense(x, 2 * NEURONS)
            sizes = self.build.constant("sizes", np.full(2, NEURONS, np.int64))
            gate, up = self.build.nodes("Split", "split", [both, sizes], 2, axis=-1)
        else:
            both, axis = self.dense(x, 2 * NEURONS), np.array([-1])
            up = self.node("Slice", both, np.array([0]), np.array([NEURONS]), axis)
            gate = self.node("Slice", both, np.array([NEURONS]), np.array([np.iinfo(np.int64).max]), axis)
        return self.dense(self.node("Mul", self.silu(gate), up), HIDDEN, NEURONS)

    def silu(self, x: gs.Tensor) -> gs.Tensor:
        return self.node("Mul", x, self.node("Sigmoid", x))

    def head(self, state: gs.Tensor) -> gs.Tensor:
        if self.kind.head == "first":
            return self.dense(self.node("Gather", state, np.array(0), axis=1), 5)
        if self.kind.head == "ends":
            ends = [self.node("Gather", state, np.array(end), axis=1) for end in (0, -1)]
            return self.dense(self.node("Add", *ends), 5)
        return self.node("ReduceMean", state, axes=[1], keepdims=0) if self.kind.head == "mean" else state


assert {field.name for field in fields(Kind)} == {*CHOICES}
