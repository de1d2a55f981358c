"""What is there is not run again; what is missing, changed or half there is."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from onnxslim_bert.zoo.conductor import Conductor
from onnxslim_bert.zoo.engines.task import Ended, Task
from onnxslim_bert.zoo.store.state import RunState
from onnxslim_bert.zoo.store.storage import Storage

TASK = Task("a" * 64, "make", "bert int8 cpu")
OTHER = Task("b" * 64, "make", "bert small cpu")


class Engine:
    """Writes an artefact for each task, or ends it as `ends` says."""

    def __init__(self, **ends: Ended) -> None:
        self.ends = ends
        self.asked: list[str] = []

    def run(self, tasks, storage, started, doing, *, alone=False) -> Iterator[Ended]:
        for task in tasks:
            started(task, "host 1")
            self.asked.append(task.name)
            ended = self.ends.get(task.key[0], Ended(task.key, "done"))
            if ended.status == "done":
                write(Storage(storage), task.key)
            yield ended


class RunListener:
    """Counts."""

    def __init__(self) -> None:
        self.seen: list[object] = []

    def waiting(self, tasks, cached) -> None:
        self.seen.append((len(tasks), cached))

    def started(self, task, worker) -> None:
        self.seen.append(f"started {task.name}")

    def doing(self, task, stage, done, total) -> None:
        self.seen.append(f"{stage} {task.name}")

    def ended(self, task, ended) -> None:
        self.seen.append(f"{ended.status} {task.name}")


def write(storage: Storage, key: str) -> None:
    """What a task leaves."""
    storage.write(f"objects/{key}/model.onnx", key.encode())
    sha256 = hashlib.sha256(key.encode()).hexdigest()
    storage.write(f"objects/{key}/result.json", json.dumps({"key": key, "files": {"model.onnx": sha256}}).encode())


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path


def conduct(out: Path, engine: Engine, *tasks: Task) -> tuple[Conductor, RunListener, list]:
    """Run the tasks in `out`; and their states."""
    watch = RunListener()
    with RunState(out / "zoo.sqlite") as state, state.lock():
        conductor = Conductor(engine, Storage(out), str(out), state, watch)
        conductor.run(tasks)
        return conductor, watch, [state.known(task.key) for task in tasks]


def test_what_is_done_is_not_run_again(out):
    conduct(out, Engine(), TASK)
    engine = Engine()
    conductor, watch, states = conduct(out, engine, TASK, OTHER)
    assert engine.asked == [OTHER.name]
    assert conductor.ran == {OTHER.key}
    assert watch.seen == [(1, 1), f"started {OTHER.name}", f"done {OTHER.name}"]
    assert [(state.status, state.attempts) for state in states] == [("done", 1), ("done", 1)]


def test_a_result_is_read_once(out, monkeypatch):
    """An object store takes its time for each."""
    conduct(out, Engine(), TASK)
    names, read = [], Storage.read
    monkeypatch.setattr(Storage, "read", lambda self, name: names.append(name) or read(self, name))
    conductor, _, _ = conduct(out, Engine(), TASK)
    assert [conductor.result(TASK.key)["key"] for _ in range(2)] == [TASK.key] * 2
    assert names == [f"objects/{TASK.key}/result.json"]


def test_one_content_under_two_names_is_one_task(out):
    engine = Engine()
    conduct(out, engine, TASK, Task(TASK.key, "make", "the same"))
    assert len(engine.asked) == 1


def test_what_was_blocked_is_tried_by_the_next_run(out):
    conduct(out, Engine(a=Ended(TASK.key, "blocked", "disk full", 2)), TASK)
    engine = Engine()
    _, _, states = conduct(out, engine, TASK)
    assert engine.asked == [TASK.name]
    assert states[0].status == "done"


def test_what_is_to_be_made_again_waits(out):
    """In a run that is interrupted before it begins; what was said of it is of before."""

    class Interrupted(Engine):
        def run(self, *_, **__):
            raise KeyboardInterrupt
            yield

    conduct(out, Engine(), TASK)
    Storage(out).delete("objects")
    with pytest.raises(KeyboardInterrupt):
        conduct(out, Interrupted(), TASK)
    with RunState(out / "zoo.sqlite") as state:
        assert [(found.status, found.attempts) for found in state.tasks()] == [("waiting", 1)]


def test_a_result_that_can_be_seen_now_is_one(out):
    """It is there, whatever was said of it when it could not be seen."""
    conduct(out, Engine(a=Ended(TASK.key, "failed", "why", 2)), TASK)
    write(Storage(out), TASK.key)
    engine = Engine()
    _, _, states = conduct(out, engine, TASK)
    assert (engine.asked, states[0].status) == ([], "done")


def test_a_failure_stays_until_it_is_forgotten(out):
    engine = Engine(a=Ended(TASK.key, "failed", "no such layer", 2))
    conduct(out, engine, TASK)
    _, _, (state,) = conduct(out, engine, TASK)
    assert (engine.asked, state.message) == ([TASK.name], "no such layer")
    with RunState(out / "zoo.sqlite") as states:
        states.forget([TASK.key])
    conduct(out, engine, TASK)
    assert len(engine.asked) == 2


def test_a_result_that_was_never_accounted_for_is_taken(out):
    """The coordinator was killed after the commit."""
    with RunState(out / "zoo.sqlite") as state, state.lock():
        state.begin(TASK, "host 1")
    write(Storage(out), TASK.key)
    engine = Engine()
    _, _, (state,) = conduct(out, engine, TASK)
    assert engine.asked == []
    assert (state.status, state.attempts) == ("done", 1)


@pytest.mark.parametrize(
    ("status", "before", "now", "again"),
    [
        ("timeout", (60.0, 10), (61.0, 10), True),
        ("timeout", (60.0, 10), (None, 10), True),
        ("timeout", (60.0, 10), (60.0, 20), False),
        ("timeout", (60.0, 10), (50.0, None), False),
        ("memory", (60.0, 10), (60.0, 20), True),
        ("memory", (60.0, 10), (60.0, None), True),
        ("memory", (60.0, 10), (90.0, 10), False),
        ("memory", (60.0, None), (60.0, None), False),  # the system had no more
        ("crashed", (60.0, 10), (None, None), False),
    ],
)
def test_a_limit_that_is_wider_now_is_tried(out, status, before, now, again):
    conduct(out, Engine(a=Ended(TASK.key, status)), replace(TASK, timeout=before[0], memory=before[1]))
    engine = Engine()
    conduct(out, engine, replace(TASK, timeout=now[0], memory=now[1]))
    assert bool(engine.asked) is again


@pytest.mark.parametrize("damage", ["missing", "changed", "no result", '{"key', "[]", "{}", '{"key": "other"}'])
def test_what_was_damaged_is_made_again(out, damage):
    conduct(out, Engine(), TASK)
    file = out / "objects" / TASK.key / ("model.onnx" if damage in ("missing", "changed") else "result.json")
    if damage in ("missing", "no result"):
        file.unlink()
    else:
        file.write_text(damage)
    engine = Engine()
    conduct(out, engine, TASK)
    assert engine.asked == [TASK.name]
    assert file.exists()
