"""What stands in run.json for a study or timing that is missing: a record without values, with the reason."""

from onnxslim_bert.machine import host
from onnxslim_bert.zoo.conductor import UNENDED
from onnxslim_bert.zoo.engines.task import Task
from onnxslim_bert.zoo.records import Study, Timing
from onnxslim_bert.zoo.store.state import TaskState


def unstudied(task: Task, state: TaskState | None) -> Study:
    """The study of a source whose "study" task has no result, with the reason."""
    return Study(task.key, {}, reason=_why(state))


def untimed(task: Task, state: TaskState | None) -> Timing:
    """The timing of a source whose "time" task has no result, with the reason."""
    asked = task.payload
    return Timing(task.key, task.target, None, {}, host(), asked["rounds"], asked["threads"], _why(state))


def _why(state: TaskState | None) -> str:
    if state is None or state.status in UNENDED:
        return "not done yet"
    return f"{state.status}: {state.message}" if state.message else state.status
