"""Fold constants, store equal ones once, merge equal nodes, name everything."""

from dataclasses import dataclass
from typing import ClassVar

import onnx
import onnx_graphsurgeon as gs

from onnxslim_bert.errors import ModelError
from onnxslim_bert.graph.edit import sort_nodes
from onnxslim_bert.graph.probe import producer
from onnxslim_bert.graph.runtime_words import in_words
from onnxslim_bert.model.einsum import spell_einsums
from onnxslim_bert.model.narrow_weights import narrow_weights
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.packed import part_packed
from onnxslim_bert.model.pointwise import spell_pointwise
from onnxslim_bert.model.rms_norm import spell_rms_norms
from onnxslim_bert.model.rows import spell_rows
from onnxslim_bert.model.simplify import drop_no_effect, fold, merge_equal_constants, merge_equal_nodes
from onnxslim_bert.model.unfuse import unfuse
from onnxslim_bert.rewriting.contract import Change, Context, Pass
from onnxslim_bert.wording import plural

PARKED = "onnxslim.parked"
OPSET = 17  # the first with LayerNormalization
SAME_RANK = ("Add", "Sub", "Mul", "Div", "Where", "MatMul", "FusedMatMul", "Cast", "Tanh", "Identity")


@dataclass(frozen=True)
class Canonicalize(Pass):
    """Bring the graph into the one form that every other pass reads.

    In this order:
    1. an opset below 17 is raised to 17;
    2. fused nodes (com.microsoft's, for instance) become the standard operators that they stand for;
    3. constants are folded, and Einsums of two operands, convolutions over single tokens and products of rows that
       tokens were made of (onnxsim) become matrix products over tokens;
    4. equal constants are stored once (folding may have copied weights that layers share), nodes without effect go, and
       nodes that compute the same merge;
    5. matrices that hold several roles side by side, as query, key and value in one, become one matrix a role;
    6. every node gets a name of its own.
    Answers stay bit-identical, unless a fused node, an Einsum, a convolution, a product of rows or a packed matrix had
    to be rewritten; then they change by rounding.
    """

    name: ClassVar[str] = "canonicalize"
    exact: ClassVar[float | None] = 1e-5
    empty_rows: ClassVar[bool] = True
    takes_exits: ClassVar[bool] = True

    def apply(self, model: Model, ctx: Context) -> Change:
        before = len(model.graph.nodes)
        unfused = spell_rms_norms(model.graph)
        raise_opset(model)
        unfused += unfuse(model.graph)
        narrow = narrow_weights(model.graph)
        fold(model)
        einsums = spell_einsums(model.graph)
        convolutions = spell_pointwise(model.graph)
        rows = spell_rows(model.graph)
        if rows:
            sort_nodes(model.graph)
        model.changed()
        while merge_equal_constants(model.graph) + drop_no_effect(model.graph) + merge_equal_nodes(model.graph):
            model.changed()
        name_nodes(model.graph)
        if parted := part_packed(model.graph):
            model.changed()
            merge_equal_constants(model.graph)
            name_nodes(model.graph)
        model.changed()
        after = len(model.graph.nodes)
        note = f"{before} nodes became {after}"
        note += f", {plural(unfused, 'fused node')} taken apart" if unfused else ""
        note += f", {plural(parted, 'packed matrix', 'packed matrices')} parted" if parted else ""
        if einsums:
            note += f", {plural(einsums, 'Einsum')} written as products"
        if convolutions:
            note += f", {plural(convolutions, 'convolution')} over single tokens written as products"
        if rows:
            note += f", {plural(rows, 'product')} of rows written over tokens"
        if narrow:
            stored, wide = sum(weight.nbytes for weight in narrow), sum(weight.wide for weight in narrow)
            types = " and ".join(sorted({weight.dtype for weight in narrow}))
            unfolded = f"{plural(len(narrow), 'weight')} stored as {types} unfolded"
            note += f", {unfolded}, {stored / 1e6:.3g} to {wide / 1e6:.3g} MB"
        count = max(before - after, 0) + unfused + parted + einsums + convolutions + rows + len(narrow)
        return Change(count, note if count else f"nothing to simplify in {plural(after, 'node')}")


def raise_opset(model: Model) -> None:
    """Convert a graph below opset 17 to 17, with ONNX's own converter; a newer graph stays as it is.

    Weights are put aside meanwhile, so that the converter copies none. Raises ModelError when it cannot convert.
    """
    if model.graph.opset >= OPSET:
        return
    _name_last_axis(model.graph)
    skeleton, weights = model.skeleton()
    parked = _park(skeleton)
    initializers = {tensor.name: tensor for tensor in skeleton.graph.initializer if tensor.name in weights}
    stand_ins = [onnx.helper.make_tensor_value_info(n, t.data_type, t.dims) for n, t in initializers.items()]
    kept = [tensor for tensor in skeleton.graph.initializer if tensor.name not in weights]
    del skeleton.graph.initializer[:]
    skeleton.graph.initializer.extend(kept)
    skeleton.graph.input.extend(stand_ins)
    skeleton.ir_version = max(skeleton.ir_version, 8)
    try:
        raised = onnx.version_converter.convert_version(skeleton, OPSET)
    except Exception as error:  # the converter raises RuntimeError and its own types
        raise ModelError(
            f"opset {model.graph.opset} cannot be raised to {OPSET}: {in_words(error)}; export at 17 or later"
        ) from error
    for node in raised.graph.node:
        if node.domain == PARKED:
            node.domain = ""
            del node.attribute[:]
            node.attribute.extend(parked[node.name])
    inputs = [value for value in raised.graph.input if value.name not in weights]
    del raised.graph.input[:]
    raised.graph.input.extend(inputs)
    raised.graph.initializer.extend(initializers.values())
    versions = {entry.domain: entry.version for entry in [*skeleton.opset_import, *raised.opset_import]} | {"": OPSET}
    del raised.opset_import[:]
    raised.opset_import.extend(
        onnx.helper.make_opsetid(d, v) for d, v in versions.items() if d not in (PARKED, "ai.onnx")
    )
    model.graph = Model.from_proto(raised, weights).graph
    model.changed()


def _park(skeleton: onnx.ModelProto) -> dict[str, list[onnx.AttributeProto]]:
    """Hide nodes from the converter that it need not change; return the attributes to give them at opset 17, by name.

    Two kinds are hidden, by a domain that the converter does not know:
    LayerNormalization: below opset 17 it is ONNX Runtime's own operator, which opset 17 took over unchanged.
    Softmax over the last axis: it means the same at every opset, but the converter, which does not know ranks, would
    wrap it in Reshapes.
    """
    name_unnamed(skeleton)
    parked: dict[str, list[onnx.AttributeProto]] = {}
    for node in skeleton.graph.node:
        attributes = list(node.attribute)
        if node.op_type == "Softmax" and node.domain == "":
            axis = next((a.i for a in attributes if a.name == "axis"), 1)
            if axis != -1:
                continue
        elif node.op_type != "LayerNormalization" or node.domain:
            continue
        node.domain = PARKED
        parked[node.name] = attributes
    if parked:
        skeleton.opset_import.append(onnx.helper.make_opsetid(PARKED, 1))
    return parked


def _name_last_axis(graph: gs.Graph) -> None:
    """Write -1 for the axis of each Softmax on the last axis; ranks are read off the nodes above."""
    for node in graph.nodes:
        if node.op == "Softmax" and (axis := node.attrs.get("axis", 1)) == _rank(node.inputs[0], axis + 1) - 1:
            node.attrs["axis"] = -1


def _rank(tensor: gs.Tensor, least: int) -> int:
    """The number of axes, `least` or more, of attention scores, read off the nearest node above that shows it; else 0.

    Fewer axes belong to something that is broadcast, as slopes of heads are.
    """
    front = [tensor]
    for _ in range(20):
        above = [node for node in map(producer, front) if node is not None]
        if ranks := [rank for node in above if (rank := _shown_rank(node)) >= least]:
            return max(ranks)
        front = [source for node in above if node.op in SAME_RANK for source in node.inputs]
    return 0


def _shown_rank(node: gs.Node) -> int:
    """How many axes `node` gives, by a Transpose's order or the sizes that a Reshape joins; 0 where it does not say."""
    if node.op == "Transpose":
        return len(node.attrs.get("perm", ()))
    sizes = producer(node.inputs[1]) if node.op == "Reshape" else None
    if sizes is None or sizes.op != "Concat":
        return 0
    writers = [producer(size) for size in sizes.inputs]  # scalars that became a list each, and constants of one number
    return len(writers) if all(node is None or node.op in ("Unsqueeze", "Constant") for node in writers) else 0


def name_unnamed(skeleton: onnx.ModelProto) -> None:
    """Give each node of the message a name of its own."""
    for i, node in enumerate(skeleton.graph.node):
        node.name = f"{node.name or node.op_type}#{i}"


def name_nodes(graph: gs.Graph) -> None:
    """Give every node a name of its own; a name that is unique already stays."""
    taken: set[str] = set()
    for node in graph.nodes:
        base = node.name or node.outputs[0].name
        name, number = base, 0
        while name in taken:
            number += 1
            name = f"{base}.{number}"
        taken.add(name)
        node.name = name
