"""A dense layer as a graph spells it: MatMul with Add, Gemm, or one of their quantized forms."""

from dataclasses import dataclass

import onnx_graphsurgeon as gs

from onnxslim_bert.errors import ModelError
from onnxslim_bert.regions import constant, producer

QUANTIZED_WEIGHT = {"MatMulInteger": 1, "MatMulIntegerToFloat": 1, "DynamicQuantizeMatMul": 1, "QGemm": 3}
QUANTIZED_BIAS = {"MatMulIntegerToFloat": 6, "DynamicQuantizeMatMul": 4, "QGemm": 6}


@dataclass(frozen=True)
class Linear:
    """y = x @ weight + bias, by name.

    node: the MatMul or Gemm. weight: [d_in, d_out], or [d_out, d_in] when trans_b. bias: [d_out].
    source: the tensor x. result: the tensor y, after the bias. quantized: the weight is stored as integers.
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


def is_linear(node: gs.Node) -> bool:
    """Whether `node` multiplies activations by a constant matrix."""
    return _weight(node) is not None


def read_linear(node: gs.Node) -> Linear:
    """The dense layer at `node`, with the bias that follows it. Raises ModelError when `node` is none."""
    weight = _weight(node)
    if weight is None:
        raise ModelError(f"node {node.name!r} ({node.op}) is not a dense layer")
    trans_b = node.op == "Gemm" and bool(node.attrs.get("transB", 0))
    rows, columns = weight.values.shape
    d_in, d_out = (columns, rows) if trans_b else (rows, columns)
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
    is_matrix = values is not None and values.ndim == 2 and constant(node.inputs[0]) is None
    data = producer(node.inputs[0])
    if data is not None and data.op == "Gather" and data.attrs.get("axis", 0) == -1:
        return None  # a few chosen channels: what `split-outliers` keeps beside a layer
    return tensor if is_matrix and isinstance(tensor, gs.Constant) else None


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
