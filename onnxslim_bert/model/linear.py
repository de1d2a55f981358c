"""A dense layer as a graph spells it: MatMul with Add, Gemm, or one of their quantized forms."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import onnx_graphsurgeon as gs

from onnxslim_bert.errors import ModelError
from onnxslim_bert.graph.probe import constant, producer

QUANTIZED_WEIGHT = {
    "MatMulInteger": 1,
    "MatMulIntegerToFloat": 1,
    "DynamicQuantizeMatMul": 1,
    "QGemm": 3,
    "MatMulNBits": 1,
}
QUANTIZED_BIAS = {"MatMulIntegerToFloat": 6, "DynamicQuantizeMatMul": 4, "QGemm": 6, "MatMulNBits": 5}
BETWEEN_FACTORS = frozenset(  # what smoothing and quantization put there
    ["Clip", "Cast", "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"]
)


@dataclass(frozen=True)
class Linear:
    """A dense layer, y = x @ weight + bias, by the names of its node and tensors.

    node: the MatMul or Gemm. weight: [d_in, d_out], or [d_out, d_in] when trans_b. bias: [d_out].
    source: the tensor x. result: the tensor y, after the bias. quantized: the weight is stored as integers.
    factors: the two layers that this one is stored as, x @ left @ right + bias (`low-rank` writes it); node, weight and
    bias are then those of the right one, [rank, d_out].
    """

    node: str
    weight: str
    bias: str | None
    d_in: int
    d_out: int
    source: str
    result: str
    trans_b: bool = False
    quantized: bool = False
    factors: "tuple[Linear, ...]" = ()

    @property
    def matrices(self) -> "tuple[Linear, ...]":
        """The layers with one stored matrix each that this one consists of: itself, or its two factors."""
        return self.factors or (self,)


def is_linear(node: gs.Node) -> bool:
    """Whether `node` multiplies activations by a constant matrix."""
    return _weight(node) is not None


def read_linear(node: gs.Node) -> Linear:
    """The dense layer at `node`, with the bias that follows it. Raises ModelError when `node` is none."""
    weight = _weight(node)
    if weight is None:
        raise ModelError(f"node {node.name!r} ({node.op}) is not a dense layer")
    trans_b = node.op == "Gemm" and bool(node.attrs.get("transB", 0))
    d_in, d_out = _widths(node, weight, trans_b)
    source = node.inputs[0]
    quantized = weight.values.dtype.kind in "iu"
    if (
        quantized
        and (above := producer(source)) is not None
        and above.op in ("QuantizeLinear", "DynamicQuantizeLinear")
    ):
        source = above.inputs[0]
    if (above := producer(source)) is not None and above.op == "DequantizeLinear":
        quantize = producer(above.inputs[0])
        source = quantize.inputs[0] if quantize is not None else source
    result = node.outputs[0]
    bias = _inner_bias(node)
    if bias is None:
        result, bias = _following_bias(result, d_out)
    return Linear(node.name, weight.name, bias, d_in, d_out, source.name, result.name, trans_b, quantized)


def read_product(node: gs.Node) -> Linear:
    """The dense layer that the matrix at `node` belongs to: its own, or one that is stored as two factors.

    Two matrices are factors of one layer when nothing but dense layers reads the product of the first, which is no
    wider than what it reads and has no bias. Example: x @ [384, 64] @ [64, 1536] is one layer from 384 to 1536. With a
    bias after the first, as in a bottleneck, they are layers of their own.
    """
    reached = list(_next_linears(node))
    left = node if all(end is not None for end in reached) and len(reached) == 1 else _left_factor(node)
    if left is None:
        return read_linear(node)
    right = reached[0] if left is node and reached[0] is not None else node
    first, second = read_linear(left), read_linear(right)
    if first.d_out > first.d_in or (first.bias is not None and not first.quantized):
        return read_linear(node)
    quantized = first.quantized and second.quantized
    return replace(second, source=first.source, d_in=first.d_in, quantized=quantized, factors=(first, second))


def _left_factor(right: gs.Node) -> gs.Node | None:
    """The dense node above `right` whose product dense nodes alone read."""
    front, seen = list(right.inputs), set[int]()
    while front:
        node = producer(front.pop())
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        if is_linear(node):
            return node if all(end is not None for end in _next_linears(node)) else None
        if _is_between(node):
            front.extend(node.inputs)
    return None


def _next_linears(node: gs.Node) -> Iterator[gs.Node | None]:
    """The dense nodes that read the product of `node`; None for whatever else reads it, the graph's user included."""
    front, seen = list(node.outputs), set[int]()
    while front:
        tensor = front.pop()
        if not tensor.outputs:
            yield None
        for reader in tensor.outputs:
            if id(reader) in seen:
                continue
            seen.add(id(reader))
            if is_linear(reader):
                yield reader
            elif _is_between(reader):
                front.extend(reader.outputs[:1])
            else:
                yield None


def _is_between(node: gs.Node) -> bool:
    """Whether `node` may lie between two factors; a product of two activations, as behind a gate, may not.

    A sum may where all it adds is the product of a few chosen channels (`split-outliers`) or, in a Sum, a constant (QDQ
    form): not the residual stream, nor a bias, which the factor above lacks; a norm without statistics is no factor.
    """
    if node.op == "Mul":
        return any(constant(t) is not None or _is_scale(t) for t in node.inputs)
    if node.op in ("Add", "Sum"):
        added = [t for t in node.inputs if not _is_of_few_channels(t) and (node.op == "Add" or constant(t) is None)]
        return len(added) <= 1
    return node.op in BETWEEN_FACTORS


def _is_of_few_channels(tensor: gs.Tensor) -> bool:
    """Whether `tensor` is what `split-outliers` keeps beside a layer: a product with chosen channels."""
    node = producer(tensor)
    return node is not None and node.op == "MatMul" and _chooses_channels(producer(node.inputs[0]))


def _chooses_channels(node: gs.Node | None) -> bool:
    return node is not None and node.op == "Gather" and node.attrs.get("axis", 0) == -1


def _is_scale(tensor: gs.Tensor) -> bool:
    """Whether `tensor` is a quantizer's scale, times constants."""
    above = producer(tensor)
    if above is None:
        return constant(tensor) is not None
    return above.op == "DynamicQuantizeLinear" or (above.op == "Mul" and all(_is_scale(t) for t in above.inputs))


def _weight(node: gs.Node) -> gs.Constant | None:
    if node.op == "Gemm" and (node.attrs.get("transA", 0), node.attrs.get("alpha", 1), node.attrs.get("beta", 1)) != (
        0,
        1,
        1,
    ):
        return None
    position = QUANTIZED_WEIGHT.get(node.op, 1 if node.op in ("MatMul", "Gemm") else None)
    if position is None or len(node.inputs) <= position:
        return None
    tensor = node.inputs[position]
    above = producer(tensor)
    if above is not None and above.op == "DequantizeLinear":
        tensor = above.inputs[0]
    values = constant(tensor)
    is_matrix = (
        values is not None
        and values.ndim == (3 if node.op == "MatMulNBits" else 2)
        and constant(node.inputs[0]) is None
    )
    if _chooses_channels(producer(node.inputs[0])):
        return None  # what `split-outliers` keeps beside a layer
    return tensor if is_matrix and isinstance(tensor, gs.Constant) else None


def _widths(node: gs.Node, weight: gs.Constant, trans_b: bool) -> tuple[int, int]:
    """d_in and d_out; packed blocks [d_out, blocks, bytes] do not tell the first."""
    if node.op == "MatMulNBits":
        return int(node.attrs["K"]), int(node.attrs["N"])
    rows, columns = weight.values.shape
    return (columns, rows) if trans_b else (rows, columns)


def _inner_bias(node: gs.Node) -> str | None:
    position = 2 if node.op == "Gemm" else QUANTIZED_BIAS.get(node.op)
    if position is None or len(node.inputs) <= position or node.inputs[position].is_empty():
        return None
    return str(node.inputs[position].name)


def _following_bias(tensor: gs.Tensor, width: int) -> tuple[gs.Tensor, str | None]:
    """The tensor after the bias, past the rescaling of an integer product and a quantized product's Q and DQ."""
    is_integer = tensor.inputs[0].op == "MatMulInteger"
    current = tensor
    while len(current.outputs) == 1:
        node = current.outputs[0]
        other = next((t for t in node.inputs if t is not current), None)
        if node.op in ("Add", "Sum") and other is not None:
            values = constant(other)
            above = producer(other)
            if values is None and above is not None and above.op == "DequantizeLinear":
                values = constant(above.inputs[0])
            if values is not None and values.shape == (width,):
                return node.outputs[0], str(other.name)
            break
        rescales = is_integer and node.op in ("Cast", "Mul")
        if not rescales and node.op not in ("QuantizeLinear", "DequantizeLinear"):
            break
        current = node.outputs[0]
    return current if is_integer else tensor, None
