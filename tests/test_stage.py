"""A stage that has long work inside its steps is one bar, which never goes back."""

import pytest

from onnxslim_bert.progress import Stage


@pytest.fixture
def shown():
    return []


def test_work_inside_says_that_it_runs_and_that_which_takes_longest_moves_the_bar(shown):
    stage = Stage(lambda *report: shown.append(report), "models", 4, moved_by="training")
    stage.step()("pruning", 1, 2)
    inside = stage.step(weight=3)
    for task, done in (("pruning", 1), ("training: loss 3", 1), ("training: loss 2", 2), ("choosing", 1)):
        inside(task, done, 2)
    assert shown == [
        ("models", 0, 1000),
        ("models: pruning", 0, 1000),
        ("models", 250, 1000),
        ("models: pruning", 250, 1000),
        ("models: training: loss 3", 625, 1000),
        ("models: training: loss 2", 1000, 1000),
        ("models: choosing", 1000, 1000),
    ]
