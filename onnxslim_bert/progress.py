"""How long work reports how far it is."""

from collections.abc import Callable
from functools import partial

Progress = Callable[[str, int, int], None]  # what is being done, steps done, steps in all
PARTS = 1000  # of a stage, in which it is reported


class Stage:
    """A stage whose steps have long work inside them, reported as one: what runs inside stands behind a colon.

    total: the weights of all steps together. moved_by: the work inside that takes most of a step, by whose share the
    step is done; other work says only that it runs. What is reported never goes back.
    Example: "building models: pruning", 200 of 1000, while something is pruned in the second of five steps.
    """

    def __init__(self, progress: Progress, name: str, total: int, moved_by: str = "") -> None:
        self._progress, self._name, self._total, self._moved_by = progress, name, total, moved_by
        self._next, self._at = 0, 0.0

    def step(self, weight: int = 1) -> Progress:
        """Begin the next step; to what is returned the work inside reports."""
        start, self._next = self._next, self._next + weight
        self._report(self._name, start)
        return partial(self._inside, start, weight)

    def _inside(self, start: int, weight: int, task: str, done: int, total: int) -> None:
        moved = done / total if task.partition(":")[0] == self._moved_by else 0.0
        self._report(f"{self._name}: {task}", start + weight * moved)

    def _report(self, shown: str, at: float) -> None:
        self._at = max(self._at, at)
        self._progress(shown, round(PARTS * self._at / self._total), PARTS)
