"""The targets that a command runs models on, with the options that hold for all of them."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from onnxslim_bert.targets.session import Placed, open_on
from onnxslim_bert.targets.setup import NO_OPTIONS
from onnxslim_bert.targets.table import CPU
from onnxslim_bert.targets.target import Target


@dataclass(frozen=True)
class Places:
    """Targets to run models on, and how.

    allow_fallback: accept nodes that a provider leaves to the CPU.
    options: of the providers themselves, by the target's name.
    shape: (batch, tokens) in place of a model's open dimensions, for targets that take fixed shapes only.
    opened: the sessions so far, where one that is asked for again is the same; None opens a new one each time.
    """

    targets: tuple[Target, ...] = (CPU,)
    allow_fallback: bool = False
    options: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    shape: tuple[int, int] | None = None
    opened: dict[Hashable, Placed] | None = None

    def open(self, target: Target, path: Path, *, threads: int = 1, spinning: bool = False) -> Placed:
        """A session on one of the targets. Raises ProviderError and ModelError as `open_on` does."""
        asked = target.name, path, threads, spinning
        if self.opened is not None and asked in self.opened:
            return self.opened[asked]
        placed = open_on(
            target,
            path,
            threads=threads,
            spinning=spinning,
            allow_fallback=self.allow_fallback,
            options=self.options_of(target),
            shape=self.shape if target.fixed_shapes else None,
        )
        if self.opened is not None:
            self.opened[asked] = placed
        return placed

    def options_of(self, target: Target) -> Mapping[str, str]:
        """The options of the provider itself."""
        return self.options.get(target.name, NO_OPTIONS)


CPU_ONLY = Places()
