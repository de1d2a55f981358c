"""What was not studied or timed says why."""

import pytest
from zoo_documents import task_state

from onnxslim_bert.zoo.engines.task import Task
from onnxslim_bert.zoo.unmeasured import unstudied, untimed

TASK = Task("3" * 64, "time", "bert qnn", {"rounds": 30, "threads": 2}, "qnn")


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (None, "not done yet"),
        (task_state("waiting"), "not done yet"),
        (task_state("running"), "not done yet"),
        (task_state("timeout", message="not done after its 5 seconds"), "timeout: not done after its 5 seconds"),
        (task_state("crashed"), "crashed"),
    ],
)
def test_the_reason_is_how_its_task_ended(state, reason):
    study, timing = unstudied(TASK, state), untimed(TASK, state)
    assert (study.key, study.parts, study.layers, study.reason) == (TASK.key, {}, (), reason)
    assert (timing.key, timing.target, timing.source, timing.outputs, timing.reason) == (
        TASK.key,
        "qnn",
        None,
        {},
        reason,
    )
    assert (timing.rounds, timing.threads) == (30, 2)
