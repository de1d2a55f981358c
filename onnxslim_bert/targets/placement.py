"""Where the nodes of a model run, or would run."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Left:
    """A node that the provider does not take.

    reason: where the provider runs here its own words, elsewhere the rule by which it was predicted.
    fix: the passes that mend it, as a recipe; None when none are known.
    """

    node: str
    op: str
    reason: str
    fix: str | None = None


@dataclass(frozen=True)
class Placement:
    """How much of a model a provider takes.

    taken, total: nodes. left: those that it does not take.
    partitions: pieces of the graph that it runs as one; data goes there and back for each.
    predicted: the figures follow from the provider's published rules; it did not run here.
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
