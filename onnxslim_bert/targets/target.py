"""What a target is: one execution provider, how its sessions are made, and what it takes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from onnxslim_bert.errors import ProviderError
from onnxslim_bert.targets.setup import Setup

Reasons = Callable[[str], tuple[Mapping[str, str], str]]


def no_reasons(log: str) -> tuple[Mapping[str, str], str]:
    """The `reasons` of a provider whose log does not say why it leaves a node: none."""
    return {}, ""


@dataclass(frozen=True)
class Target:
    """A target: one row of the table in `table.py`.

    name: what `--ep` and `--target` take.
    provider: its name in ONNX Runtime.
    setup: (the provider's options, threads) -> how its sessions are made; raises ProviderError where it cannot execute,
    and then its partitions can only be predicted.
    precisions: in which it computes, the best first.
    home: the hardware that it is for.
    fixed_shapes: it takes no open dimension.
    extra: the extra of this package that installs it; "" when none is needed.
    emulated: what executes here is an emulator, whose answers are the device's and whose times mean nothing.
    reasons: (its verbose log) -> why it left each node, by the node's name, and what it said of the whole graph.
    """

    name: str
    provider: str
    setup: Callable[[Mapping[str, str], int], Setup]
    precisions: tuple[str, ...]
    home: str
    fixed_shapes: bool = False
    extra: str = ""
    emulated: bool = False
    reasons: Reasons = no_reasons

    def absent(self) -> str:
        """Why nothing executes on it on this machine; "" when something can."""
        try:
            self.setup({}, 1)
        except ProviderError as error:
            return str(error)
        return ""
