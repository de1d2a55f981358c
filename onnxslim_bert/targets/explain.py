"""Where the nodes of a model run on a target, and what would bring the rest there."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from onnxslim_bert.errors import as_line
from onnxslim_bert.targets.input_shapes import open_input
from onnxslim_bert.targets.placement import Placement
from onnxslim_bert.targets.prediction.predict import PREDICTED, placement_of
from onnxslim_bert.targets.prediction.remedies import BY_OPERATOR, FIX_SHAPES, STANDARD
from onnxslim_bert.targets.prediction.seen import seen_by_provider
from onnxslim_bert.targets.session import explain_on
from onnxslim_bert.targets.table import target_named

NAMED = 3  # nodes that the text names of each group
OWN_FIXES: Mapping[str, Mapping[str, str]] = {"qnn": {"Erf": STANDARD}}  # where targets that execute here differ


@dataclass(frozen=True)
class Explanation:
    """What a target takes of a model, and why no more.

    shape: (batch, tokens) that were asked about; None for the file's own. notes: what else a user should know.
    """

    model: Path
    target: str
    placement: Placement
    shape: tuple[int, int] | None = None
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Everything, every node that is left by name included."""
        groups = [
            {
                "reason": group.reason,
                "fix": group.fix,
                "count": len(group.nodes),
                "operators": group.operators,
                "nodes": [node.node for node in group.nodes],
            }
            for group in self.placement.groups
        ]
        return {
            "model": str(self.model),
            "target": self.target,
            "provider": self.placement.provider,
            "predicted": self.placement.predicted,
            "shape": self.shape,
            "taken": self.placement.taken,
            "total": self.placement.total,
            "share": self.placement.share,
            "partitions": self.placement.partitions,
            "left": groups,
            "notes": self.notes,
        }


def explain(path: Path, target_name: str, *, batch: int = 1, seq: int | None = None) -> Explanation:
    """Where each node of the file at `path` runs on a target: seen where it executes here, predicted elsewhere.

    seq: ask about inputs [batch, seq] where they have open dimensions.
    Raises ProviderError for an unknown target or one that is not installed, ModelError for a file that is no model.
    """
    target = target_named(target_name)
    is_open = open_input(path)
    shape = (batch, seq) if seq and is_open else None
    notes = []
    if target.fixed_shapes and is_open:
        fixed = f"asked here about {list(shape)}" if shape else "--seq N asks about fixed ones"
        notes.append(f"{is_open}; {target.name} takes fixed shapes only: {fixed}, {FIX_SHAPES} writes them")
    if target_name not in PREDICTED:
        placement = explain_on(target, path, shape=shape)
        fixes = {**BY_OPERATOR, **OWN_FIXES.get(target_name, {})}
        closed = shape is not None or not (is_open and target.fixed_shapes)
        left = [replace(node, fix=fixes.get(node.op) if closed else FIX_SHAPES) for node in placement.left]
        return Explanation(path, target_name, replace(placement, left=tuple(left)), shape, tuple(notes))
    seen, provider = seen_by_provider(path, shape), PREDICTED[target_name]
    notes += provider.notes(seen.graph)
    return Explanation(path, target_name, placement_of(seen, provider), shape, tuple(notes))


def describe(explanation: Explanation) -> str:
    """The explanation as text: one line for all, two for each reason, one for each note."""
    placement = explanation.placement
    how = "predicted by the rules that ONNX Runtime publishes, not seen" if placement.predicted else "seen"
    pieces = f"{placement.partitions} partition{'' if placement.partitions == 1 else 's'}"
    taken = f"{placement.taken} of {placement.total} nodes ({100 * placement.share:.1f} %) in {pieces}"
    lines = [f"{explanation.model.name} on {explanation.target}: {taken}; {how}"]
    for group in placement.groups:
        lines.append("")
        lines.append(str(group))
        names = [node.node for node in group.nodes[:NAMED]]
        more = f" and {len(group.nodes) - NAMED} more" if len(group.nodes) > NAMED else ""
        lines.append(f"    {f'mended by {group.fix}' if group.fix else 'no pass mends it'}; {', '.join(names)}{more}")
    return "\n".join(map(as_line, [*lines, *([""] if explanation.notes else []), *explanation.notes]))
