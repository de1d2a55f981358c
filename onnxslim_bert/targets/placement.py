"""Where the nodes of a model run, or would run."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Left:
    """A node that the provider does not take.

    reason: the provider's own words where it runs here, the rule that a prediction follows elsewhere. fix: the pass or
    lowering that mends it; None when none is known.
    """

    node: str
    op: str
    reason: str
    fix: str | None = None


@dataclass(frozen=True)
class Placement:
    """How much of a model a provider takes.

    taken, total: nodes. partitions: connected pieces that the provider takes, each a transition there and back.
    predicted: by the provider's published rules, not seen.
    """

    provider: str
    taken: int
    total: int
    partitions: int
    left: tuple[Left, ...] = ()
    predicted: bool = False

    @property
    def share(self) -> float:
        """The share of the nodes that the provider takes, 1 for a model without nodes."""
        return self.taken / self.total if self.total else 1.0

    @property
    def whole(self) -> bool:
        """Whether everything runs on the provider, in one piece."""
        return self.taken == self.total and self.partitions <= 1
