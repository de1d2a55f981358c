"""The study or timing of a source that could not be had: without values, with the reason."""

from onnxslim_bert.machine import host
from onnxslim_bert.zoo.conductor import UNENDED
from onnxslim_bert.zoo.engines.task import Task
from onnxslim_bert.zoo.records import Study, Timing
from onnxslim_bert.zoo.store.state import TaskState


def unstudied(task: Task, state: TaskState | None) -> Study:
    """In the place of what the "study" task did not find."""
    return Study(task.key, {}, reason=_why(state))


def untimed(task: Task, state: TaskState | None) -> Timing:
    """In the place of what the "time" task did not measure."""
    asked = task.payload
    return Timing(task.key, task.target, None, {}, host(), asked["rounds"], asked["threads"], _why(state))


def _why(state: TaskState | None) -> str:
    if state is None or state.status in UNENDED:
        return "not done yet"
    return f"{state.status}: {state.message}" if state.message else state.status
