"""Where the nodes of a model would run on a provider that cannot execute here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx_graphsurgeon as gs

from onnxslim_bert.errors import ProviderError
from onnxslim_bert.targets.placement import Left, Placement
from onnxslim_bert.targets.prediction import coreml, nnapi
from onnxslim_bert.targets.prediction.node_units import quantized_units, single_units
from onnxslim_bert.targets.prediction.partitions import Unit, pieces
from onnxslim_bert.targets.prediction.rules import Refusal
from onnxslim_bert.targets.prediction.seen import Seen, seen_by_provider

TOO_SMALL = "a piece of this one node is left to the CPU"


@dataclass(frozen=True)
class Provider:
    """The rules of one provider.

    refusal: (unit, names of weights outside the graph's file) -> why it leaves the unit; None when it takes it.
    units: the nodes of a graph, in groups that it takes together or not at all.
    gives_back: whether it leaves a partition to the CPU although it could take it.
    notes: what else a user should know of a graph on this provider.
    """

    name: str
    refusal: Callable[[Unit, frozenset[str]], Refusal | None]
    units: Callable[[gs.Graph], list[Unit]]
    gives_back: Callable[[list[Unit]], bool]
    notes: Callable[[gs.Graph], list[str]]


PREDICTED: Mapping[str, Provider] = {
    "coreml": Provider(coreml.NAME, coreml.coreml_refusal, single_units, lambda group: False, coreml.coreml_notes),
    "nnapi": Provider(nnapi.NAME, nnapi.nnapi_refusal, quantized_units, nnapi.gives_back, nnapi.nnapi_notes),
}


def predict(path: Path, target_name: str, shape: tuple[int, int] | None = None) -> Placement:
    """Where each node of the file at `path` would run on `target_name`: coreml or nnapi.

    shape: (batch, tokens) in place of the open dimensions of the inputs.
    Raises ProviderError for a target without rules, ModelError for a file that ONNX Runtime cannot load.
    """
    return placement_of(seen_by_provider(path, shape), rules_of(target_name))


def rules_of(target_name: str) -> Provider:
    """The provider's rules. Raises ProviderError when none are known."""
    if target_name not in PREDICTED:
        raise ProviderError(f"no rules are known of {target_name}; prediction is for {' and '.join(PREDICTED)}")
    return PREDICTED[target_name]


def placement_of(seen: Seen, provider: Provider) -> Placement:
    """The placement of a graph on `provider`, by its rules: what it would take, in how many partitions, why no more."""
    units = provider.units(seen.graph)
    refusals = {unit: provider.refusal(unit, seen.external) for unit in units}
    groups = pieces(units, lambda unit: refusals[unit] is None)
    kept = [group for group in groups if not provider.gives_back(group)]
    taken = {unit for group in kept for unit in group}
    left = [
        left_node(node, refusals[unit] or Refusal(TOO_SMALL, None, "helper.cc"))
        for unit in units
        if unit not in taken
        for node in unit.nodes
    ]
    total = sum(len(unit.nodes) for unit in units)
    return Placement(provider.name, total - len(left), total, len(kept), tuple(left), predicted=True)


def left_node(node: gs.Node, why: Refusal) -> Left:
    """`node`, left to the CPU by the rule in a file of the provider."""
    name = node.name or node.outputs[0].name
    return Left(name, node.op, f"{why.reason} ({why.source})" if why.source else why.reason, why.fix)
