"""Where the nodes of an open session run, from ONNX Runtime's own record; its list of providers proves nothing."""

from collections.abc import Mapping

import onnxruntime as ort

from onnxslim_bert.targets.placement import Left, Placement
from onnxslim_bert.targets.setup import CPU_PROVIDER, NO_OPTIONS

RECORD = "session.record_ep_graph_assignment_info"  # the session entry that keeps the record
UNSAID = "the provider gives no reason"


def placement_of(
    session: ort.InferenceSession, provider: str, reasons: Mapping[str, str] = NO_OPTIONS, overall: str = ""
) -> Placement:
    """The placement of an open session: how much of its optimized graph `provider` took.

    The session must have been opened with the entry RECORD. reasons: why a node was left, by its name. overall: the
    reason for nodes that are not among them.
    """
    pieces = session.get_provider_graph_assignment_info()
    taken = [piece.get_nodes() for piece in pieces if piece.ep_name == provider]
    others = [node for piece in pieces if piece.ep_name != provider for node in piece.get_nodes()]
    left = tuple(Left(n.name, n.op_type, reasons.get(n.name) or overall or UNSAID) for n in others)
    count = sum(map(len, taken))
    # ONNX Runtime records each node of the CPU provider as a piece of its own; they are one partition
    partitions = min(count, 1) if provider == CPU_PROVIDER else len(taken)
    return Placement(provider, count, count + len(left), partitions, left)
