"""The row of a job says how it ended and why it fails the run."""

from dataclasses import replace

import pytest
from zoo_documents import comparison, planned, result, task_state, timed

from onnxslim_bert.machine import Host
from onnxslim_bert.proof.gates import Budgets
from onnxslim_bert.zoo.engines.task import Task
from onnxslim_bert.zoo.records import Timing
from onnxslim_bert.zoo.rows import exit_code, row_of, verdicts_of, why_untimed

UNTIMED = Timing("1" * 64, "coreml", None, {}, Host("cpu", 2, 0.5, "Linux", "1.31"), 30, 1, reason="no phone")
TASK = Task("0" * 64, "make", "bert int8 cpu")


def row(state=None, made=None, times=None, *, strict=False, **budgets):
    """The row of a job with these budgets."""
    return row_of(planned(budgets=Budgets(**budgets)), TASK, state, made, times, cached=False, strict=strict)


def test_a_job_that_was_not_reached_waits():
    assert row().status == "waiting"
    assert row(task_state("running")).status == "waiting", "it was interrupted"


@pytest.mark.parametrize("status", ["crashed", "timeout", "memory"])
def test_a_process_that_was_stopped_is_exit_code_1(status):
    assert row(task_state(status, message="why")).exit_code == 1


def test_an_error_keeps_its_own_code():
    found = row(task_state("failed", message="no provider", exit_code=5))
    assert (found.exit_code, found.message) == (5, "no provider")


def test_what_meets_its_budgets_passes():
    found = row(task_state("done"), result(), timed(3.0), max_drop=5, min_speedup=2, max_size=10_000_000)
    assert [verdict.outcome for verdict in found.verdicts] == ["met"] * 4
    assert found.exit_code == 0


@pytest.mark.parametrize(("budgets", "code"), [({"max_drop": -5}, 3), ({"min_speedup": 9}, 4), ({"max_size": 10}, 6)])
def test_a_missed_budget_has_the_code_of_its_gate(budgets, code):
    assert row(task_state("done"), result(), timed(3.0), **budgets).exit_code == code


@pytest.mark.parametrize(
    ("measured", "outcome", "code"), [(9, "met", 0), (11, "missed", 6), (None, "inconclusive", 0)], ids=str
)
def test_a_download_is_held_to_its_budget_where_it_was_measured(measured, outcome, code):
    made = replace(result(), download_bytes=measured)
    found = row(task_state("done"), made, timed(3.0), max_download=10)
    assert (found.verdicts[-1].gate, found.verdicts[-1].outcome, found.exit_code) == ("max-download", outcome, code)


def test_accuracy_comes_before_latency_and_size():
    assert row(task_state("done"), result(), timed(3.0), max_size=10, min_speedup=9, max_drop=-5).exit_code == 3


def test_an_inconclusive_verdict_fails_only_if_strict():
    budgets = {"max_drop": comparison().scores[0].drop.value}
    codes = [row(task_state("done"), result(), **budgets, strict=strict).exit_code for strict in (False, True)]
    assert codes == [0, 3]


@pytest.mark.parametrize(
    ("timing", "state", "outcome", "note"),
    [
        (None, None, "inconclusive", "not timed yet"),
        (None, task_state("waiting"), "inconclusive", "not timed yet"),
        (None, task_state("crashed", message="signal 11"), "missed", "timing crashed: signal 11"),
        (None, task_state("blocked", message="disk full"), "missed", "timing blocked: disk full"),
        (UNTIMED, task_state("done"), "inconclusive", "no phone"),
    ],
)
def test_a_speed_up_that_was_not_measured_is_not_passed_over(timing, state, outcome, note):
    """Where no budget asks for it, it is."""
    untimed = why_untimed(timing, state)
    assert (untimed.outcome, untimed.note) == (outcome, note)
    given = (TASK, task_state("done"), result(), None)
    asked = planned(budgets=Budgets(min_speedup=2))
    assert row_of(asked, *given, untimed=untimed, cached=False, strict=False).verdicts[-1] == untimed
    assert row_of(asked, *given, untimed=untimed, cached=False, strict=True).exit_code == 4
    free = row_of(planned(), *given, untimed=untimed, cached=False, strict=True)
    assert [verdict.gate for verdict in free.verdicts] == ["finite"]


def test_a_result_that_is_there_is_one():
    """Also where the run was interrupted before the account of it."""
    assert [row(state, result()).status for state in (None, task_state("running"))] == ["done", "done"]


def test_a_budget_without_data_is_an_error():
    found = row(task_state("done"), result(comparison=None), max_drop=1)
    assert found.exit_code == 2
    assert "needs evaluation rows" in found.message


def test_verdicts_name_their_job_and_begin_with_whether_it_was_made():
    made, lost = row(task_state("done"), result()), row(task_state("timeout", message="after 5 s"))
    names = [(verdict.name, verdict.outcome) for verdict in verdicts_of([made, lost])]
    where = "bert int8 cpu"
    assert names == [(f"made on {where}", "met"), (f"finite on {where}", "met"), (f"made on {where}", "missed")]


def test_the_run_fails_with_its_lowest_code():
    rows = [row(task_state("done"), result()), row(task_state("failed", exit_code=5)), row(task_state("timeout"))]
    assert exit_code(rows) == 1
    assert exit_code(rows[:2]) == 5
    assert exit_code(rows[:1]) == 0
