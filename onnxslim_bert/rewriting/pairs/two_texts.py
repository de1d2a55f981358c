"""The two texts of a pair in a graph: which token is whose, and what keeps them apart."""

from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxslim_bert.graph.edit import redirect
from onnxslim_bert.graph.probe import producer
from onnxslim_bert.model.embeddings import table_of
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.positions import positions_of
from onnxslim_bert.model.write_attention import HIDDEN
from onnxslim_bert.rewriting.marks import DECOUPLED

FEW = 5  # tokens of a row on which positions are tried


def type_input(model: Model) -> gs.Tensor | None:
    """The input [batch, seq] that says which text a token belongs to, by a table of two rows; else None."""
    name = model.encoder.embeddings.token_type
    for node in model.graph.nodes:
        table = table_of(node)
        if table is not None and table.name == name and len(table.values) == 2:
            source = node.inputs[1]
            while (above := producer(source)) is not None and above.op == "Cast":
                source = above.inputs[0]
            return next((tensor for tensor in model.graph.inputs if tensor is source), None)
    return None


class TwoTexts:
    """Writes what keeps the question, tokens of type 0, and the passage, those of type 1, apart.

    start: the position of the passage's first token.
    """

    def __init__(self, model: Model, start: int) -> None:
        self.model, self.start = model, start
        self.build = DECOUPLED.builder(model.graph)
        self.types = type_input(model)

    @staticmethod
    def unnumbered(model: Model) -> str:
        """Why the positions of the two texts cannot be counted apart; empty when they can."""
        found = lookups(model)
        if not found:
            return "no table of positions is looked up"
        for node in found:
            if any(reader.op not in ("Add", "Sum") for reader in node.outputs[0].outputs):
                return (
                    f"positions are not added as {node.outputs[0].name!r} gives them; decouple before quantizing them"
                )
            if node.op != "Slice" and node.inputs[1] in model.graph.inputs:
                return (
                    f"positions are the input {node.inputs[1].name!r}, and passages have their own; export without it"
                )
            if node.op != "Slice" and positions_of(model, node.inputs[1], FEW).tolist() != list(range(FEW)):
                return f"positions {node.inputs[1].name!r} are not counted from 0 on"
        return ""

    def number(self) -> None:
        """Count the positions of each text by itself: those of the question from 0 on, the passage's from `start`."""
        build = self.build
        one, axis = build.constant("one", np.array(1, np.int64)), build.constant("axis", np.array(1, np.int64))
        passage = build.node("Cast", "passage", [self.types], to=onnx.TensorProto.INT64)
        numbers = []
        for mine, first in ((build.node("Sub", "question", [one, passage]), 0), (passage, self.start)):
            before = build.constant("before", np.array(first - 1, np.int64))
            number = build.node("Add", "number", [build.node("CumSum", "count", [mine, axis]), before])
            numbers.append(build.node("Mul", "mine", [number, mine]))
        positions = build.node("Add", "positions", numbers)
        rows = len(self.model.array(str(self.model.encoder.embeddings.position)))
        places = build.node("Min", "places", [positions, build.constant("last", np.array(rows - 1, np.int64))])
        for node in lookups(self.model):
            rows = build.node("Gather", "rows", [node.inputs[0], places], axis=0)
            redirect(self.model.graph, node.outputs[0], rows)

    def apart(self, dtype: np.dtype[Any]) -> gs.Tensor:
        """What is added to scores, [batch, 1, seq, seq]: 0 where both tokens are of one text; one for all layers."""
        build, name = self.build, f"{DECOUPLED.prefix}/apart"
        first, second = (
            build.once("Unsqueeze", f"{name}/{side}", [self.types, build.constant(side, np.array(axes, np.int64))])
            for side, axes in (("queries", [1, 3]), ("keys", [1, 2]))
        )
        same = build.once("Equal", f"{name}/same", [first, second])
        both, other = (build.constant("number", np.array(value, dtype)) for value in (0, HIDDEN))
        return build.once("Where", name, [same, both, other])


def lookups(model: Model) -> list[gs.Node]:
    """The nodes that look rows up in the table of positions."""
    position = model.encoder.embeddings.position
    read = [(node, table_of(node)) for node in model.graph.nodes]
    return [node for node, table in read if table is not None and table.name == position]
