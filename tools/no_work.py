"""A job that does nothing, for measuring what any job costs. Imports little: each job's process imports it."""

from dataclasses import dataclass
from pathlib import Path

from onnxslim_bert.zoo.engines.task import Task
from onnxslim_bert.zoo.store.storage import Storage


@dataclass(frozen=True)
class Nothing:
    """Its result."""


def nothing(_task: Task, _storage: Storage, _folder: Path) -> Nothing:
    """What it does, as a kind of task: "no_work:nothing"."""
    return Nothing()
