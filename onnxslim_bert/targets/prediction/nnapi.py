"""What NNAPI takes, by the rules of ONNX Runtime's builders.

Each row names the file that it restates, in
https://github.com/microsoft/onnxruntime/tree/main/onnxruntime/core/providers/nnapi/nnapi_builtin/builders/impl.
Feature level 3 (Android 10) or newer is taken for granted. Shapes are asked by base_op_builder.cc for every operator.
"""

import numpy as np
import onnx_graphsurgeon as gs

from onnxslim_bert.targets.prediction.partitions import Unit
from onnxslim_bert.targets.prediction.remedies import MASK
from onnxslim_bert.targets.prediction.rules import (
    EVERY,
    FLOAT32,
    Builder,
    Refusal,
    Rule,
    dtype,
    first_refusal,
    fixed,
    known,
    plain_gemm,
    ranks,
    reads,
    shape,
    values,
)

NAME = "NnapiExecutionProvider"
MIGRATION = "https://developer.android.com/ndk/guides/neuralnetworks/migration-guide"
NOT_ALONE = ("Reshape", "Flatten", "Identity")  # a piece of one of these is given back, in helper.cc
DENSE, INTEGER = "dense-2d", "int32-inputs"
QUANTIZED = ("Add", "Mul", "Transpose", "Reshape", "Softmax", "Concat", "Gemm", "MatMul")  # in helper.cc
SOFTMAX_SCALE = 1 / 256
FIXES = {
    **dict.fromkeys(("Erf", "Gelu", "FastGelu"), "gelu-tanh"),
    "LayerNormalization": "unfuse-norms,lower-opset",
}


def nnapi_refusal(unit: Unit, external: frozenset[str] = frozenset()) -> Refusal | None:
    """Why NNAPI leaves `unit` to the CPU; None when it takes it. external: weights outside the graph's file."""
    if any(tensor.name in external for node in unit.nodes for tensor in node.inputs):
        return Refusal("reads weights from another file than the graph", None, EVERY)
    if unit.quantized:
        return _quantized(unit)
    return first_refusal(unit, BUILDERS, FIXES)


def gives_back(group: list[Unit]) -> bool:
    """Whether NNAPI leaves a partition to the CPU that it could take: one node that only changes or keeps a shape."""
    return len(group) == 1 and group[0].node.op in NOT_ALONE


def nnapi_notes(graph: gs.Graph) -> list[str]:
    """Notes on NNAPI that hold for every graph."""
    return [f"NNAPI is deprecated since Android 15 ({MIGRATION})"]


def _matmul(unit: Unit) -> Refusal | None:
    """op_builder_helpers.cc (IsSupportedBatchMatMul) and gemm_op_builder.cc."""
    left, right = (shape(tensor) for tensor in unit.node.inputs)
    if len(left) >= 3 and len(left) == len(right) and left[:-2] == right[:-2]:
        return None
    if len(left) != 2 or len(right) != 2:
        return Refusal(f"{len(left)} by {len(right)} dimensions, 2 by 2 or as many of equal size were needed", DENSE)
    return known((1, "the matrix"))(unit)


def _gemm(unit: Unit) -> Refusal | None:
    """gemm_op_builder.cc."""
    if not unit.node.attrs.get("transB", 0) and values(unit.node, 1) is None:
        return Refusal("a computed matrix that is not transposed")
    return plain_gemm(unit)


def _gather(unit: Unit) -> Refusal | None:
    """gather_op_builder.cc."""
    kind = dtype(unit.node.inputs[1])
    if kind == "int32" or values(unit.node, 1) is not None:
        return None
    return Refusal(f"computed {kind} indices, int32 was needed", INTEGER)


def _cast(unit: Unit) -> Refusal | None:
    """cast_op_builder.cc."""
    kind = dtype(unit.node.outputs[0])
    return None if kind in ("float32", "int32") else Refusal(f"gives {kind}, float32 or int32 was needed", MASK)


def _softmax(unit: Unit) -> Refusal | None:
    """softmax_op_builder.cc."""
    rank = len(shape(unit.node.inputs[0]))
    return None if rank in (2, 4) else Refusal(f"reads {rank} dimensions, 2 or 4 are taken")


def _reshape(unit: Unit) -> Refusal | None:
    """reshape_op_builder.cc."""
    target = values(unit.node, 1)
    empty = unit.node.attrs.get("allowzero", 0) and target is not None and 0 in target
    return Refusal("gives an empty tensor") if empty else None


def _split(unit: Unit) -> Refusal | None:
    """split_op_builder.cc."""
    axis = unit.node.attrs.get("axis", 0)
    sizes = {shape(tensor)[axis] for tensor in unit.node.outputs}
    return None if len(sizes) == 1 else Refusal("parts of different size")


def _two_inputs(unit: Unit) -> Refusal | None:
    """minmax_op_builder.cc."""
    count = len(unit.node.inputs)
    return None if count == 2 else Refusal(f"{count} tensors, 2 were needed")


def _clip(unit: Unit) -> Refusal | None:
    """clip_op_builder.cc."""
    ends = [values(unit.node, place) for place in (1, 2)]
    found = [None if end is None else end.item() for end in ends]
    return None if found in ([0, 6], [-1, 1]) else Refusal(f"clips to {found}, [0, 6] or [-1, 1] was needed")


def _one_scale(unit: Unit) -> Refusal | None:
    """quantizelinear_op_builder.cc and dequantizelinear_op_builder.cc: u8 with one scale."""
    scale, zero = values(unit.node, 1), values(unit.node, 2)
    if scale is None or scale.size != 1:
        return Refusal("more than one scale, or a computed one")
    kind = "uint8" if zero is None else zero.dtype.name
    return None if kind == "uint8" else Refusal(f"{kind}, uint8 was needed")


def _quantized(unit: Unit) -> Refusal | None:
    """helper.cc (GetQuantizedOpType, HasValidBinaryOpQuantizedInputTypes) and the builders of the eight operators."""
    node = unit.node
    if node.op not in QUANTIZED:
        return Refusal("no quantized form of this operator is taken", None, "helper.cc")
    places = {id(tensor): place for place, tensor in enumerate(node.inputs)}
    for source in unit.before:
        place = places[id(source.outputs[0])]
        is_weight, is_bias = node.op in ("Gemm", "MatMul") and place == 1, node.op == "Gemm" and place == 2
        kind = dtype(source.inputs[0])
        if not is_bias and kind != "uint8" and not (is_weight and kind == "int8"):
            return Refusal(f"quantized to {kind}, uint8 was needed", None, "helper.cc")
        if not is_bias and not is_weight and (refusal := _one_scale(Unit(source))):
            return refusal
    if node.op in ("Gemm", "MatMul") and any(len(shape(tensor)) != 2 for tensor in node.inputs[:2]):
        return Refusal("quantized, of other than 2 by 2 dimensions", DENSE, "gemm_op_builder.cc")
    if node.op == "Softmax" and not np.isclose(_scale(unit), SOFTMAX_SCALE, atol=0):
        return Refusal("quantized, with an output scale other than 1/256", None, "softmax_op_builder.cc")
    return _softmax(unit) if node.op == "Softmax" else None


def _scale(unit: Unit) -> float:
    scale = values(unit.after[0], 1)
    return 0.0 if scale is None or scale.size != 1 else float(scale.item())


def _row(source: str, *rules: Rule, kinds: tuple[str, ...] = FLOAT32) -> Builder:
    """Shapes and the type of the first input are asked of every operator."""
    return Builder(source, (fixed, reads(kinds, 0), *rules))


ANY_RANK = ranks(1, 4, 0)
AXES = known((1, "the axes"))
SLICED = known((1, "the start"), (2, "the end"), (3, "the axes"), (4, "the step"))
INT8 = ("float32", "uint8")

BUILDERS: dict[str, Builder] = (
    dict.fromkeys(("Add", "Sub", "Mul", "Div"), _row("binary_op_builder.cc", ranks(0, 4, 0, 1)))
    | dict.fromkeys(("Abs", "Exp", "Floor", "Log", "Neg", "Sin", "Sqrt", "Tanh"), _row("unary_op_builder.cc"))
    | dict.fromkeys(("Max", "Min"), _row("minmax_op_builder.cc", _two_inputs))
    | dict.fromkeys(("Squeeze", "Unsqueeze"), _row("squeeze_op_builder.cc", ANY_RANK, AXES))
    | dict.fromkeys(
        ("QuantizeLinear", "DequantizeLinear"),
        Builder("quantizelinear_op_builder.cc", (fixed, _one_scale)),
    )
    | {
        "Cast": _row("cast_op_builder.cc", _cast),
        "Clip": _row("clip_op_builder.cc", _clip),
        "Concat": _row("concat_op_builder.cc", ANY_RANK, kinds=INT8),
        "Elu": _row("elu_op_builder.cc"),
        "Flatten": _row("flatten_op_builder.cc", ANY_RANK),
        "Gather": _row("gather_op_builder.cc", ANY_RANK, _gather),
        "Gemm": _row("gemm_op_builder.cc", _gemm),
        "Identity": _row("identity_op_builder.cc"),
        "LeakyRelu": _row("leakyrelu_op_builder.cc"),
        "MatMul": _row("gemm_op_builder.cc", _matmul),
        "Pow": _row("binary_op_builder.cc", reads(FLOAT32, 1), ranks(0, 4, 0, 1)),
        "ReduceMean": _row("reduction_op_builder.cc", ANY_RANK, AXES),
        "Relu": _row("relu_op_builder.cc"),
        "Reshape": _row("reshape_op_builder.cc", ANY_RANK, known((1, "the new shape")), _reshape),
        "Sigmoid": _row("unary_op_builder.cc", ANY_RANK),
        "Slice": _row("slice_op_builder.cc", ANY_RANK, SLICED),
        "Softmax": _row("softmax_op_builder.cc", _softmax),
        "Split": _row("split_op_builder.cc", known((1, "the sizes")), _split),
        "Transpose": _row("transpose_op_builder.cc", ANY_RANK, kinds=INT8),
    }
)
