"""Take fused nodes apart, so that every other pass reads one language.

Operators of the com.microsoft domain are specified in ONNX Runtime's docs/ContribOperators.md.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxslim_bert.graph.edit import Builder, redirect
from onnxslim_bert.graph.probe import MICROSOFT, constant, producer
from onnxslim_bert.model.whole_rows import restore_blocks


def unfuse(graph: gs.Graph) -> int:
    """Rewrite fused nodes as the operators that they stand for; returns how many were rewritten."""
    count = 0
    for node in list(graph.nodes):
        rewrite = REWRITES.get(node.op) if (node.domain or "") == MICROSOFT else None
        if rewrite is not None and rewrite(node, Builder(graph, node.name or node.outputs[0].name)):
            count += 1
    choices = [node for node in graph.nodes if node.op == "If"]
    count += sum(restore_mask(graph, node) or restore_blocks(graph, node) for node in choices)
    return count


def restore_mask(graph: gs.Graph, node: gs.Node) -> bool:
    """Undo the pass `skip-mask`: put attention with a mask in place of the If that skips it where nothing is padded.

    Returns whether `node` was such an If.
    """
    plain, masked = (node.attrs[branch].nodes for branch in ("then_branch", "else_branch"))
    if len(plain) != 1 or not masked or {plain[0].op, masked[-1].op} not in ({"MultiHeadAttention"}, {"Attention"}):
        return False
    unpadded = producer(node.inputs[0])
    least = producer(unpadded.inputs[0]) if unpadded is not None and unpadded.op == "Cast" else None
    if least is None or least.op != "ReduceMin" or _hiding(graph, masked) != least.inputs[0].name:
        return False
    attention, old = masked[-1], node.outputs[0]
    if [t.name for t in plain[0].inputs] != [t.name for t in attention.inputs[:3]]:
        return False
    if attention.op == "Attention" and not {"q_num_heads", "scale"} <= attention.attrs.keys():
        return False
    if attention.op == "MultiHeadAttention":
        inputs, attrs = list(attention.inputs), dict(attention.attrs)
    else:
        inputs = [*attention.inputs[:3], None, least.inputs[0]]
        attrs = {"num_heads": attention.attrs["q_num_heads"], "scale": attention.attrs["scale"]}
    result = Builder(graph, node.name).node("MultiHeadAttention", "masked", inputs, MICROSOFT, **attrs)
    for gone in (node, *plain, *masked):
        gone.inputs.clear()
        gone.outputs.clear()
    graph.nodes[:] = [kept for kept in graph.nodes if kept is not node]
    redirect(graph, old, result)
    return True


def _hiding(graph: gs.Graph, masked: list[gs.Node]) -> str:
    """The name of the mask that the branch `masked` of `skip-mask` reads; "" where it is another's branch.

    ONNX's Attention reads (1 - mask) * HIDDEN, repeated for every query (`write_attention.mask_bias`).
    """
    if masked[-1].op == "MultiHeadAttention":
        return masked[-1].inputs[4].name if len(masked) == 1 and len(masked[-1].inputs) == 5 else ""
    if [inner.op for inner in masked] != ["Shape", "Concat", "Expand", "Attention"]:
        return ""
    tensor = graph.tensors().get(masked[2].inputs[0].name)
    for op, position in (("Unsqueeze", 0), ("Mul", 0), ("Sub", 1), ("Cast", 0)):
        above = producer(tensor) if tensor is not None else None
        if above is None or above.op != op:
            return ""
        tensor = above.inputs[position]
    return tensor.name if tensor is not None else ""


def _skip_norm(node: gs.Node, build: Builder) -> bool:
    """SkipLayerNormalization(x, skip, gamma, beta, bias) -> LayerNormalization of their sum."""
    x, skip, gamma, *rest = node.inputs
    beta, bias = _optional(rest, 0), _optional(rest, 1)
    if bias is not None:
        x = build.node("Add", "biased", [x, bias])
    total = build.node("Add", "sum", [x, skip])
    return _replace(build.graph, node, {0: _norm(build, node, total, gamma, beta), 3: total})


def _embed_norm(node: gs.Node, build: Builder) -> bool:
    """EmbedLayerNormalization: the sum of three tables' rows, normalised; and the number of real tokens of each row."""
    ids, segments, words, positions, types, gamma, beta = node.inputs[:7]
    mask, position_ids = _optional(node.inputs, 7), _optional(node.inputs, 8)
    if position_ids is None:
        length = build.node("Shape", "length", [ids], start=1, end=2)
        bounds = [build.constant("zero", np.zeros(1, np.int64)), length, build.constant("zero", np.zeros(1, np.int64))]
        placed = build.node("Slice", "positions", [positions, *bounds])
    else:
        placed = build.node("Gather", "positions", [positions, position_ids])
    total = build.node("Add", "sum", [build.node("Gather", "words", [words, ids]), placed])
    if not segments.is_empty() and not types.is_empty():
        total = build.node("Add", "sum", [total, build.node("Gather", "types", [types, segments])])
    outputs = {0: _norm(build, node, total, gamma, _optional([beta], 0)), 2: total}
    if len(node.outputs) > 1 and node.outputs[1].outputs:
        if mask is None:
            return False
        outputs[1] = build.node("ReduceSum", "lengths", [mask, build.constant("one", np.ones(1, np.int64))], keepdims=0)
    return _replace(build.graph, node, outputs)


def _norm(build: Builder, node: gs.Node, total: gs.Tensor, gamma: gs.Tensor, beta: gs.Tensor | None) -> gs.Tensor:
    """The norm of `total`, as the fused `node` has it.

    Without beta there is no third input: ONNX Runtime crashes on one that is there and empty.
    """
    given = [total, gamma] if beta is None else [total, gamma, beta]
    return build.node("LayerNormalization", "norm", given, axis=-1, epsilon=node.attrs.get("epsilon", 1e-12))


def _attention(node: gs.Node, build: Builder) -> bool:
    """Attention with one packed matrix -> three matrices and MultiHeadAttention, where shapes are as specified."""
    packed, bias = constant(node.inputs[1]), _optional(node.inputs, 2)
    shift = None if bias is None else constant(bias)
    if packed is None or any(not t.is_empty() for t in node.inputs[4:]) or node.attrs.get("unidirectional", 0):
        return False
    if packed.ndim != 2 or (bias is not None and (shift is None or shift.shape != packed.shape[1:])):
        return False
    sizes = node.attrs.get("qkv_hidden_sizes") or [packed.shape[1] // 3] * 3
    if len(sizes) != 3 or sum(sizes) != packed.shape[1] or min(sizes) < 0:
        return False
    bounds = np.cumsum(sizes)[:-1]
    biases = np.split(shift, bounds) if shift is not None else [None] * 3
    roles = []
    for role, weight, own in zip(("query", "key", "value"), np.split(packed, bounds, axis=1), biases, strict=True):
        result = build.node("MatMul", role, [node.inputs[0], build.constant("weight", np.ascontiguousarray(weight))])
        if own is not None:
            result = build.node("Add", role, [result, build.constant("bias", own)])
        roles.append(result)
    kept = {name: node.attrs[name] for name in ("num_heads", "scale", "mask_filter_value") if name in node.attrs}
    mask = _mask_of_lengths(build, _optional(node.inputs, 3))
    context = build.node("MultiHeadAttention", "context", [*roles, None, mask], MICROSOFT, **kept)
    return _replace(build.graph, node, {0: context})


def _mask_of_lengths(build: Builder, mask: gs.Tensor | None) -> gs.Tensor | None:
    """The mask [batch, seq] that numbers of tokens stand for: 1 at places below them; `mask` itself where it is none.

    BERT's optimizer in ONNX Runtime counts the ones of a mask [batch, seq] and lets attention see so many of the first
    tokens, wherever the ones were: padding is taken to be on the right.
    """
    counts = None if mask is None else producer(mask)
    if counts is not None and counts.op == "Cast":
        counts = producer(counts.inputs[0])
    if mask is None or counts is None or counts.op != "ReduceSum" or counts.attrs.get("keepdims", 1):
        return mask
    seen = f"{counts.outputs[0].name}/seen"
    if (existing := build.graph.tensors().get(seen)) is not None:
        return existing
    length = build.node("Shape", "length", [counts.inputs[0]], start=1, end=2)
    ones = build.node("ConstantOfShape", "ones", [length], value=gs.Constant("value", np.ones(1, np.int64)))
    numbers = build.node("CumSum", "numbers", [ones, build.constant("axis", np.array(0, np.int64))])
    limits = build.node("Cast", "limits", [counts.outputs[0]], to=onnx.TensorProto.INT64)
    apart = build.node("Unsqueeze", "apart", [limits, build.constant("last", np.array([1], np.int64))])
    within = build.node("Not", "within", [build.node("Greater", "beyond", [numbers, apart])])
    return build.once("Cast", seen, [within], to=onnx.TensorProto.INT32)


def _attention_inputs(node: gs.Node, build: Builder) -> bool:
    """MultiHeadAttention with a packed bias, or with numbers of tokens for a mask -> with neither."""
    shifted = _attention_bias(node, build)
    mask = _optional(node.inputs, 4)
    if mask is None or (made := _mask_of_lengths(build, mask)) is mask:
        return shifted
    node.inputs[4] = made
    return True


def _attention_bias(node: gs.Node, build: Builder) -> bool:
    """MultiHeadAttention with a packed bias -> the bias added to query, key and value."""
    bias = _optional(node.inputs, 3)
    values = None if bias is None else constant(bias)
    if values is None or values.ndim != 1 or any(_optional(node.inputs, i) is None for i in (1, 2)):
        return False
    width = (values.size - values.size // 3) // 2
    bounds = np.cumsum([width, width])
    for i, shift in enumerate(np.split(values, bounds)):
        node.inputs[i] = build.node(
            "Add", ("query", "key", "value")[i], [node.inputs[i], build.constant("bias", shift)]
        )
    node.inputs[3] = gs.Variable.empty()
    return True


def _bias_gelu(node: gs.Node, build: Builder) -> bool:
    """BiasGelu(x, bias) -> Gelu(x + bias)."""
    result = build.node("Gelu", "gelu", [build.node("Add", "biased", list(node.inputs))], MICROSOFT)
    return _replace(build.graph, node, {0: result})


def _fast_gelu_bias(node: gs.Node, build: Builder) -> bool:
    """FastGelu(x, bias) -> FastGelu(x + bias)."""
    if _optional(node.inputs, 1) is None:
        return False
    result = build.node("FastGelu", "gelu", [build.node("Add", "biased", list(node.inputs))], MICROSOFT)
    return _replace(build.graph, node, {0: result})


def _scaled_product(node: gs.Node, build: Builder) -> bool:
    """FusedMatMul(a, b) -> alpha * (a @ b), with the last two axes of either turned, if the file states ranks."""
    operands = list(node.inputs)
    alpha = node.attrs.get("alpha", 1.0)
    dtype = _float_type(operands[0])
    if any(node.attrs.get(f"transBatch{side}", 0) for side in "AB") or (alpha != 1 and dtype is None):
        return False
    turned = [i for i, side in enumerate("AB") if node.attrs.get(f"trans{side}", 0)]
    if any(len(operands[i].shape or ()) < 2 for i in turned):
        return False
    for i in turned:
        *ahead, rows, columns = range(len(operands[i].shape))
        operands[i] = build.node("Transpose", "turned", [operands[i]], perm=[*ahead, columns, rows])
    result = build.node("MatMul", "product", operands)
    if alpha != 1:
        result = build.node("Mul", "scaled", [result, build.constant("alpha", np.array(alpha, dtype))])
    return _replace(build.graph, node, {0: result})


def _activated_product(node: gs.Node, build: Builder) -> bool:
    """FusedGemm(a, b, c) -> activation(Gemm(a, b, c)), where the activation takes no numbers of its own."""
    activation = node.attrs.get("activation")
    if activation not in ("Relu", "Sigmoid", "Tanh"):
        return False
    kept = {name: node.attrs[name] for name in ("alpha", "beta", "transA", "transB") if name in node.attrs}
    product = build.node("Gemm", "product", list(node.inputs), **kept)
    return _replace(build.graph, node, {0: build.node(activation, "activated", [product])})


def _float_type(tensor: gs.Tensor) -> np.dtype[Any] | None:
    """The type of `tensor`: stated, or that of the nearest constant of floats above, unless a Cast lies between."""
    front, seen = [tensor], set[int]()
    while front:
        current = front.pop(0)
        if current.dtype is not None and np.dtype(current.dtype).kind == "f":
            found: np.dtype[Any] = np.dtype(current.dtype)
            return found
        node = producer(current)
        if node is not None and id(node) not in seen and node.op != "Cast":
            seen.add(id(node))
            front.extend(node.inputs)
    return None


def _optional(tensors: list[gs.Tensor], position: int) -> gs.Tensor | None:
    present = len(tensors) > position and not tensors[position].is_empty()
    return tensors[position] if present else None


def _replace(graph: gs.Graph, node: gs.Node, results: dict[int, gs.Tensor]) -> bool:
    """Let the outputs of `node` come from `results`, and take the node out."""
    outputs = list(node.outputs)
    node.outputs.clear()
    node.inputs.clear()
    for i, old in enumerate(outputs):
        if not old.is_empty() and i in results:
            redirect(graph, old, results[i])
    return True


REWRITES: dict[str, Callable[[gs.Node, Builder], bool]] = {
    "SkipLayerNormalization": _skip_norm,
    "EmbedLayerNormalization": _embed_norm,
    "Attention": _attention,
    "MultiHeadAttention": _attention_inputs,
    "BiasGelu": _bias_gelu,
    "FastGelu": _fast_gelu_bias,
    "FusedMatMul": _scaled_product,
    "FusedGemm": _activated_product,
}
