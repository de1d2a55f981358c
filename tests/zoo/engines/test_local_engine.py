"""Tasks in processes of this machine: how many at once, in which order, and what happens when nobody wants them."""

import itertools
import threading
import time
from collections.abc import Iterable, Iterator

import psutil
import pytest

from onnxslim_bert.zoo.engines.local import JOB_BYTES, LocalEngine, default_jobs
from onnxslim_bert.zoo.engines.process import this_worker
from onnxslim_bert.zoo.engines.task import Task
from onnxslim_bert.zoo.store.storage import Storage, result_name


def tasks_of(kind: str, numbers: Iterable[int], **payload: object) -> Iterator[Task]:
    """Tasks named by their numbers, which are their keys, too."""
    for number in numbers:
        yield Task(f"{number:064}", f"tasks:{kind}", str(number), payload, timeout=30)


def at_once(lines: Iterable[str]) -> int:
    """The most that had begun and not ended."""
    running = itertools.accumulate(1 if line.startswith("begin") else -1 for line in lines)
    return max(running)


def nothing(*_: object) -> None:
    """Nobody looks on."""


def test_what_runs_at_once_is_counted():
    """The measure itself."""
    assert at_once(["begin 0", "begin 1", "end 0", "begin 2", "end 2", "end 1"]) == 2
    assert at_once(["begin 0", "end 0", "begin 1", "end 1"]) == 1


@pytest.mark.parametrize(("jobs", "alone", "most"), [(3, False, 3), (2, False, 2), (1, False, 1), (3, True, 1)])
def test_as_many_run_as_may(tmp_path, jobs, alone, most):
    """Never more, and not fewer: they wait for each other; those that time run alone."""
    log = tmp_path / "log"
    tasks = tasks_of("meet", range(4), log=str(log), count=most)
    ends = list(LocalEngine(jobs).run(tasks, str(tmp_path), nothing, nothing, alone=alone))
    assert [ended.status for ended in ends] == ["done"] * 4
    assert at_once(log.read_text().splitlines()) == most


def test_a_task_is_heard_while_it_runs(tmp_path):
    """And what it says is none of its files."""
    heard = []
    (task,) = tasks_of("count", [0])
    engine = LocalEngine(1)
    list(engine.run([task], str(tmp_path), nothing, lambda task, *said: heard.append((task.name, *said))))
    assert heard == [("0", "counting", number, 3) for number in (1, 2, 3)]
    assert Storage(tmp_path).names(f"objects/{task.key}") == [result_name(task.key)]


def test_each_is_yielded_as_it_ends(tmp_path):
    """One that waits for later ones comes after them."""
    first = tasks_of("wait_for", [0], name=result_name(f"{2:064}"))
    ends = LocalEngine(2).run([*first, *tasks_of("write", [1, 2])], str(tmp_path), nothing, nothing)
    order = [int(ended.key) for ended in ends]
    assert order[0] == 1
    assert sorted(order) == [0, 1, 2]


def test_each_end_is_its_own(tmp_path):
    """One that crashes is a row; the others go on."""
    kinds = ["write", "read_nowhere", "miss_budget", "write"]
    tasks = [Task(f"{number:064}", f"tasks:{kind}", kind) for number, kind in enumerate(kinds)]
    ends = {int(ended.key): ended.status for ended in LocalEngine(2).run(tasks, str(tmp_path), nothing, nothing)}
    assert ends == {0: "done", 1: "crashed", 2: "failed", 3: "done"}


def test_tasks_are_taken_when_they_can_begin(tmp_path):
    """In their order, not before there is room, each announced before its process begins."""
    taken: list[str] = []
    announced: list[tuple[str, str, bool]] = []

    def tasks() -> Iterator[Task]:
        for task in tasks_of("write", itertools.count()):
            taken.append(task.name)
            yield task

    def started(task: Task, worker: str) -> None:
        begun = any(
            child.cmdline()[-1:] == ["onnxslim_bert.zoo.engines.worker"] for child in psutil.Process().children()
        )
        announced.append((task.name, worker, begun))

    ends = LocalEngine(1).run(tasks(), str(tmp_path), started, nothing)
    assert taken == []
    assert int(next(ends).key) == 0
    assert taken == ["0"]
    assert int(next(ends).key) == 1
    assert taken == ["0", "1"]
    ends.close()
    assert announced == [("0", this_worker(), False), ("1", this_worker(), False)]


def test_what_nobody_waits_for_is_ended(tmp_path):
    """Processes and threads are gone when the iteration is given up."""
    before = threading.active_count()
    ends = LocalEngine(2).run([*tasks_of("write", [0]), *tasks_of("sleep", [1, 2])], str(tmp_path), nothing, nothing)
    assert int(next(ends).key) == 0
    began = time.monotonic()
    ends.close()
    assert time.monotonic() - began < 10
    assert psutil.Process().children() == []
    assert threading.active_count() == before
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_target_executes_where_its_provider_is(monkeypatch):
    engine = LocalEngine(1)
    assert engine.executes("cpu")
    assert not engine.executes("nnapi"), "only on a phone"


def test_an_interruption_ends_everything(tmp_path):
    """Whoever is told of a task may be interrupted, and nothing stays."""

    def started(task: Task, worker: str) -> None:
        if task.name == "1":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(LocalEngine(2).run(tasks_of("sleep", [0, 1]), str(tmp_path), started, nothing))
    assert psutil.Process().children() == []


def test_no_tasks_are_no_work(tmp_path):
    """And no process."""
    assert list(LocalEngine(2).run([], str(tmp_path), nothing, nothing)) == []


def test_default_jobs_fit_the_machine(monkeypatch):
    """CPUs that may be used, fewer where memory is short, never none."""
    from onnxslim_bert import machine as host

    class Memory:
        available = 0

    monkeypatch.setattr(psutil, "virtual_memory", lambda: Memory)
    cpus = host.host().cpus
    for available, jobs in ((1 << 50, cpus), (JOB_BYTES * 3 // 2, 1), (0, 1)):
        Memory.available = available
        assert default_jobs() == jobs
    assert LocalEngine().jobs == 1
