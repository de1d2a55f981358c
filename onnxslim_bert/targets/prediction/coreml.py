"""What CoreML takes, as an ML program, by the rules of ONNX Runtime's builders.

Each row names the file that it restates, in
https://github.com/microsoft/onnxruntime/tree/main/onnxruntime/core/providers/coreml/builders/impl.
Where releases since 1.23 differ, the strictest holds, so that what is predicted whole is whole on a phone's older one.
Shapes and types of tensors are asked by base_op_builder.cc and helper.cc for every operator.
"""

import onnx_graphsurgeon as gs

from onnxslim_bert.graph.probe import constant, producer
from onnxslim_bert.targets.prediction.partitions import Unit
from onnxslim_bert.targets.prediction.remedies import BY_OPERATOR, FIX_SHAPES, MASK
from onnxslim_bert.targets.prediction.rules import (
    EVERY,
    Builder,
    Refusal,
    Rule,
    dtype,
    first_refusal,
    fixed,
    inputs,
    is_fixed,
    known,
    plain_gemm,
    reads,
    shape,
    values,
)

NAME = "CoreMLExecutionProvider"
FLOATS = ("float32", "float16")
INTEGERS = ("int32", "int64")
MOST_RANK = 5
LATER = "only newer releases of ONNX Runtime take"
NEURAL_ENGINE_ROWS = 16384  # https://github.com/apple/coremltools/issues/1003

# What the newest releases list (tools/mobile_helpers/coreml_supported_mlprogram_ops.md) and older ones refuse.
NEWER = ("And", "Ceil", "Cos", "Elu", "Exp", "GatherND", "Identity", "Sin", "Softplus", "Tile", "Where")
INT8 = (
    *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "MatMulIntegerToFloat"),
    *("DynamicQuantizeMatMul", "MatMulNBits", "QAttention", "QGemm"),
)


def coreml_refusal(unit: Unit, external: frozenset[str] = frozenset()) -> Refusal | None:
    """Why CoreML leaves `unit` to the CPU; None when it takes it. external: weights outside the graph's file."""
    op, tensors = unit.node.op, inputs(unit.node)
    if any(tensor.name in external for tensor in tensors):
        return Refusal("reads weights from another file than the graph, which releases up to 1.24 refuse", None, EVERY)
    if any(tensor.shape is None or 0 in tensor.shape for tensor in tensors):
        return Refusal("reads a tensor that is empty or of unknown shape", FIX_SHAPES, EVERY)
    if (most := max((len(shape(tensor)) for tensor in tensors), default=0)) > MOST_RANK:
        return Refusal(f"reads {most} dimensions, at most {MOST_RANK} are taken", None, EVERY)
    if op in INT8:
        return Refusal("ML programs have no quantized form here, give the float model")
    if op in NEWER:
        return Refusal(f"{LATER} this operator", BY_OPERATOR.get(op))
    return first_refusal(unit, BUILDERS, {})


def coreml_notes(graph: gs.Graph) -> list[str]:
    """Notes on what CoreML takes and its Neural Engine does not: large tables."""
    tables = {t.name: t for node in graph.nodes if node.op == "Gather" for t in node.inputs[:1]}
    large = [t for t in tables.values() if constant(t) is not None and t.shape[0] > NEURAL_ENGINE_ROWS]
    return [
        f"the table {table.name} has {table.shape[0]} rows; the Neural Engine takes {NEURAL_ENGINE_ROWS}, so CoreML "
        "looks it up elsewhere (trim-vocabulary makes it smaller)"
        for table in large
    ]


def _cast(unit: Unit) -> Refusal | None:
    """cast_op_builder.cc."""
    node = unit.node
    kinds = [dtype(tensor) for tensor in (node.inputs[0], node.outputs[0])]
    if producer(node.inputs[0]) is None:
        return Refusal(f"{LATER} a Cast of a graph input", MASK)
    if "bool" in kinds:
        return Refusal(f"{LATER} a Cast with bool", MASK)
    return None if set(kinds) <= {*FLOATS, *INTEGERS} else Refusal(f"a Cast from {kinds[0]} to {kinds[1]}")


def _reshape(unit: Unit) -> Refusal | None:
    """reshape_op_builder.cc."""
    target = values(unit.node, 1)
    if target is None or not is_fixed(unit.node.inputs[0]):
        return Refusal("an open shape, before or after", FIX_SHAPES)
    if target.size > MOST_RANK or not target.size or not shape(unit.node.inputs[0]):
        return Refusal(f"{len(shape(unit.node.inputs[0]))} dimensions become {target.size}, 1 to {MOST_RANK} are taken")
    return None


def _gather(unit: Unit) -> Refusal | None:
    """gather_op_builder.cc."""
    table, indices = unit.node.inputs[:2]
    if dtype(indices) not in INTEGERS:
        return Refusal(f"{dtype(indices)} indices")
    if not shape(indices):
        return Refusal(f"{LATER} a lookup of one row", "first-token")
    rank = len(shape(table)) + len(shape(indices)) - 1
    return None if rank <= MOST_RANK else Refusal(f"gives {rank} dimensions, at most {MOST_RANK} are taken")


def _unsqueeze(unit: Unit) -> Refusal | None:
    """squeeze_op_builder.cc."""
    rank = len(shape(unit.node.outputs[0]))
    return Refusal(f"gives {rank} dimensions, at most {MOST_RANK} are taken") if rank > MOST_RANK else None


def _norm(unit: Unit) -> Refusal | None:
    """normalization_op_builder.cc."""
    node = unit.node
    if len([tensor for tensor in node.outputs if not tensor.is_empty()]) > 1:
        return Refusal("gives its mean too")
    if node.attrs.get("stash_type", 1) != 1 or len({dtype(tensor) for tensor in inputs(node)}) > 1:
        return Refusal("mixes types")
    return None


def _same_types(unit: Unit) -> Refusal | None:
    """binary_op_builder.cc, of Pow."""
    kinds = [dtype(tensor) for tensor in unit.node.inputs]
    return None if len(set(kinds)) == 1 else Refusal(f"{kinds[0]} to the power of {kinds[1]}")


def _parts(unit: Unit) -> Refusal | None:
    """split_op_builder.cc and concat_op_builder.cc: one part is none."""
    count = len(unit.node.outputs if unit.node.op == "Split" else unit.node.inputs)
    return None if count > 1 else Refusal("one part only", "canonicalize")


def _row(source: str, *rules: Rule, kinds: tuple[str, ...] = FLOATS) -> Builder:
    """The type of the first input is asked of every operator."""
    return Builder(source, (reads(kinds, 0), *rules))


SLICED = known((1, "the start"), (2, "the end"), (3, "the axes"), (4, "the step"))
AXES = known((1, "the axes"))
WEIGHTS = known((1, "the scale"), (2, "the bias"))

BUILDERS: dict[str, Builder] = (
    dict.fromkeys(("Add", "Sub", "Mul", "Div", "Max"), _row("binary_op_builder.cc"))
    | dict.fromkeys(("Erf", "Reciprocal", "Round", "Sqrt"), _row("unary_op_builder.cc"))
    | dict.fromkeys(("Gelu", "LeakyRelu", "Relu", "Sigmoid", "Tanh"), _row("activation_op_builder.cc"))
    | dict.fromkeys(("ReduceMax", "ReduceMean", "ReduceSum"), _row("reduction_op_builder.cc", AXES))
    | {
        "Pow": _row("binary_op_builder.cc", _same_types),
        "Cast": Builder("cast_op_builder.cc", (_cast,)),
        "Clip": _row("clip_op_builder.cc", known((1, "the minimum"), (2, "the maximum"))),
        "Concat": _row("concat_op_builder.cc", _parts),
        "Gather": _row("gather_op_builder.cc", _gather, kinds=(*FLOATS, "int64")),
        "Gemm": _row("gemm_op_builder.cc", known((1, "the matrix"), (2, "the bias")), plain_gemm),
        "LayerNormalization": _row("normalization_op_builder.cc", WEIGHTS, _norm),
        "MatMul": _row("gemm_op_builder.cc"),
        "Reshape": _row("reshape_op_builder.cc", _reshape),
        "Shape": _row("shape_op_builder.cc", kinds=(*FLOATS, *INTEGERS)),
        "Slice": _row("slice_op_builder.cc", fixed, SLICED, kinds=(*FLOATS, "int64")),
        "Softmax": _row("softmax_op_builder.cc", fixed),
        "Split": _row("split_op_builder.cc", known((1, "the sizes")), _parts),
        "Squeeze": _row("squeeze_op_builder.cc", AXES),
        "Transpose": _row("transpose_op_builder.cc"),
        "Unsqueeze": _row("squeeze_op_builder.cc", AXES, _unsqueeze),
    }
)
