"""Where the nodes of a model run, or would run."""

from collections import Counter
from collections.abc import Mapping
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
class Group:
    """Nodes that are left to the CPU for one reason. fix: the passes that mend it; None when none are known."""

    reason: str
    fix: str | None
    nodes: tuple[Left, ...]

    @property
    def operators(self) -> Mapping[str, int]:
        """How many nodes of each operator, the most first."""
        return dict(Counter(node.op for node in self.nodes).most_common())

    def __str__(self) -> str:
        return f"{', '.join(f'{count} {op}' for op, count in self.operators.items())}: {self.reason}"


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

    @property
    def groups(self) -> list[Group]:
        """The nodes left to the CPU by reason, the largest group first."""
        by_reason: dict[tuple[str, str | None], list[Left]] = {}
        for left in self.left:
            by_reason.setdefault((left.reason, left.fix), []).append(left)
        groups = [Group(reason, fix, tuple(nodes)) for (reason, fix), nodes in by_reason.items()]
        return sorted(groups, key=lambda group: -len(group.nodes))
