"""Marks that one pass leaves in the graph for later ones, written and read here alone.

A node carries a mark when it has the mark's operator and a name that begins with the mark's prefix. Example: a Clip
called outliers/clipped says that the outliers of what it reads were split off. So a mark is saved with the file and
stays when other passes write around it. A Clip of a user's own pass has another name and is not taken for one.
"""

from dataclasses import dataclass

import onnx_graphsurgeon as gs

from onnxslim_bert.graph.edit import Builder
from onnxslim_bert.graph.exits import EXIT
from onnxslim_bert.graph.probe import constant, producer

ELEMENTWISE = frozenset(["Clip", "Mul", "Div", "Add", "Sub", "Identity", "Cast", "QuantizeLinear", "DequantizeLinear"])


@dataclass(frozen=True)
class Mark:
    """A kind of mark: a node carries it that has the operator `op` and a name that begins with `prefix` and a slash."""

    prefix: str
    op: str

    def builder(self, graph: gs.Graph) -> Builder:
        """A Builder whose nodes' names begin with the prefix; those of operator `op` carry the mark."""
        return Builder(graph, self.prefix)

    def is_on(self, node: gs.Node) -> bool:
        """Whether `node` carries the mark."""
        return bool(node.op == self.op and node.name.startswith(f"{self.prefix}/"))

    def is_in(self, graph: gs.Graph) -> bool:
        """Whether any node of `graph` carries the mark."""
        return any(self.is_on(node) for node in graph.nodes)

    def is_above(self, tensor: gs.Tensor) -> bool:
        """Whether a marked node computes `tensor`, with nothing but element-wise operators in between."""
        node = producer(tensor)
        while node is not None and not self.is_on(node):
            varying = [source for source in node.inputs if constant(source) is None and not source.is_empty()]
            node = producer(varying[0]) if node.op in ELEMENTWISE and len(varying) == 1 else None
        return node is not None


UNPADDED = Mark("unpad", "NonZero")  # the positions that `unpad` keeps, found once for the model
SPLIT_OUTLIERS = Mark("outliers", "Clip")  # in front of a dense layer whose outliers `split-outliers` multiplies apart
EARLY_EXIT = Mark(EXIT, "NonZero")  # the rows that go on behind an exit of `early-exit`
EXIT_TEST = Mark(EXIT, "GreaterOrEqual")  # whether a row is sure enough to leave there
DECOUPLED = Mark("decouple", "Equal")  # whether two tokens are of one text, for layers that read two texts apart
