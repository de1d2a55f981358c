"""Targets that no worker of a cluster has: said once, given up after a while."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

PATIENCE_S = 600.0


@dataclass
class Shortage:
    """Keeps track of targets that tasks wait for and no worker has.

    patience: seconds for which a target may be lacking. say: told of each such target once. scheduler: its address.
    """

    patience: float
    say: Callable[[str], None]
    scheduler: str
    since: dict[str, float] = field(default_factory=dict)
    said: set[str] = field(default_factory=set)

    def given_up(self, targets: Iterable[str], workers: Iterable[Mapping[str, Any]], now: float) -> dict[str, str]:
        """The targets that tasks wait for and that have been lacking for longer than `patience`, with what is needed.

        workers: as the scheduler describes them, with their `resources`. now: seconds of a clock.
        """
        lacking = {target for target in targets if not any(has(worker, target) for worker in workers)}
        self.since = {target: self.since.get(target, now) for target in sorted(lacking)}
        for target in self.since.keys() - self.said:
            self.said.add(target)
            self.say(f"{self.needed(target)}; waiting {self.patience:g} s for one")
        return {target: self.needed(target) for target, began in self.since.items() if now - began >= self.patience}

    def needed(self, target: str) -> str:
        """A message: which worker is missing for `target`, and how to start one."""
        resource = "" if target == "cpu" else f' with the resource "{target}"'
        option = "" if target == "cpu" else f' --resources "{target}=1"'
        return f"dask://{self.scheduler} has no worker{resource}: needed `dask worker {self.scheduler}{option}`"


def has(worker: Mapping[str, Any], target: str) -> bool:
    """Whether a worker can take tasks for `target`: every one can for "cpu"."""
    return target == "cpu" or worker.get("resources", {}).get(target, 0) >= 1
