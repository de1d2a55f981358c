"""Tasks on a real Dask scheduler and its workers, each a process of its own on this machine."""

import hashlib
import json
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import pytest

pytest.importorskip("distributed", reason="needs the extra [dask]")

from dask_cluster import cluster, until
from distributed import Client

from onnxslim_bert.errors import ProviderError, SlimError
from onnxslim_bert.machine import versions
from onnxslim_bert.zoo.engines import dask_engine, dask_run
from onnxslim_bert.zoo.engines.dask_engine import DaskEngine
from onnxslim_bert.zoo.engines.dask_run import is_over
from onnxslim_bert.zoo.engines.dask_shortage import Shortage
from onnxslim_bert.zoo.engines.dask_worker import differences
from onnxslim_bert.zoo.engines.local import LocalEngine
from onnxslim_bert.zoo.engines.named import engine_named
from onnxslim_bert.zoo.engines.task import Ended, Engine, Task
from onnxslim_bert.zoo.store.storage import Storage


class Run:
    """Runs tasks and keeps what the engine said. begun: (name, process id of the worker), in order."""

    def __init__(self, engine: Engine, storage: Path) -> None:
        self.engine, self.storage = engine, storage
        self.begun: list[tuple[str, int]] = []
        self.heard: list[tuple[str, str, int, int]] = []

    def __call__(self, *tasks: Task, alone: bool = False) -> dict[str, Ended]:
        """How each ended, by its name."""
        names = {task.key: task.name for task in tasks}
        ends = self.engine.run(tasks, str(self.storage), self.started, self.doing, alone=alone)
        return {names[ended.key]: ended for ended in ends}

    def started(self, task: Task, worker: str) -> None:
        self.begun.append((task.name, int(worker.split()[-1])))

    def doing(self, task: Task, stage: str, done: int, total: int) -> None:
        self.heard.append((task.name, stage, done, total))


def task(name: str, kind: str = "write", /, target: str = "cpu", **payload: object) -> Task:
    return Task(hashlib.sha256(name.encode()).hexdigest(), f"tasks:{kind}", name, payload, target)


class Held:
    """A task that stays until it is released."""

    def __init__(self, storage: Path) -> None:
        self.storage = Storage(storage)
        self.task = task("held", "wait_for", name="go")

    def release(self) -> None:
        self.storage.write("go", b"")


def process_of(worker: subprocess.Popen[bytes]) -> psutil.Process:
    """The process of the task that a worker is at, as soon as there is one."""

    def looked_for() -> list[psutil.Process]:
        with suppress(psutil.Error):  # a worker has children of a moment besides
            children = psutil.Process(worker.pid).children()
            return [child for child in children if "onnxslim_bert.zoo.engines.worker" in child.cmdline()]
        return []

    return until(looked_for, "a process begins")[0]


def has_ended(process: psutil.Process) -> bool:
    """Also of one that nobody has asked for its exit code yet."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A cluster with two workers for "cpu"; the second is one for "qnn", too."""
    with cluster(tmp_path_factory.mktemp("pair")) as found:
        found.worker()
        found.worker("--resources", "qnn=1")
        with Client(found.address, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=20)
        yield found


@pytest.fixture
def bare(tmp_path):
    """A cluster without workers; it gives a task up when it has lost two workers with it."""
    variables = {"ALLOWED_FAILURES": "1", "WORK_STEALING_INTERVAL": "100ms"}
    with cluster(
        tmp_path / "cluster", **{f"DASK_DISTRIBUTED__SCHEDULER__{k}": v for k, v in variables.items()}
    ) as found:
        yield found


@pytest.fixture
def background():
    """Where a run goes on while the test interferes."""
    executor = ThreadPoolExecutor(1)
    yield executor
    executor.shutdown(wait=False, cancel_futures=True)


def test_results_and_ends_are_those_of_the_local_engine(pair, tmp_path):
    """The same files with the same bytes, and the same end of every task, crashes and limits included."""
    tasks = [
        *(task(f"made {number}", files={"a.txt": f"{number}"}, value=number) for number in range(4)),
        task("missed", "miss_budget"),
        task("killed", "kill_itself", signal=int(signal.SIGKILL)),
        replace(task("large", "eat", megabytes=200), memory=150 << 20),
        replace(task("long", "sleep"), timeout=0.7),
    ]
    local, dask = Run(LocalEngine(2), tmp_path / "local"), Run(DaskEngine(pair.address), tmp_path / "dask")
    expected, ends = local(*tasks), dask(*tasks)
    statuses = {name: ended.status for name, ended in ends.items()}
    assert statuses == {name: ended.status for name, ended in expected.items()}
    assert [statuses[name] for name in ("killed", "large", "long")] == ["crashed", "memory", "timeout"]
    missed = ends["missed"]
    assert (missed.status, missed.message, missed.exit_code) == ("failed", "5 points lost", 3)
    assert objects(dask.storage) == objects(local.storage)
    assert len(objects(dask.storage)) == 8  # a file and a result each
    assert sorted(name for name, _ in dask.begun) == sorted(ends)
    assert {pid for _, pid in dask.begun} == {worker.pid for worker in pair.workers}


def objects(storage: Path) -> dict[str, bytes]:
    place = Storage(storage)
    return {name: place.read(name) or b"" for name in place.names("objects")}


def test_a_task_is_heard_while_it_runs(pair, tmp_path):
    run = Run(DaskEngine(pair.address), tmp_path)
    run(task("three", "count"))
    assert run.heard == [("three", "counting", number, 3) for number in (1, 2, 3)]


def test_a_task_goes_to_a_worker_that_has_its_target(pair, tmp_path):
    """All of them, though another worker has nothing to do."""
    run = Run(DaskEngine(pair.address), tmp_path)
    ends = run(*(task(f"for qnn {number}", target="qnn") for number in range(3)))
    assert {ended.status for ended in ends.values()} == {"done"}
    assert [pid for _, pid in run.begun] == 3 * [pair.workers[1].pid]


def test_a_target_that_no_worker_has_is_said_and_given_up(pair, tmp_path, monkeypatch):
    """Once, with the resource; what other workers can do is done meanwhile."""
    monkeypatch.setattr(dask_run, "LOOK_S", 0.2)
    said: list[str] = []
    run = Run(DaskEngine(pair.address, patience=1, say=said.append), tmp_path)
    ends = run(task("possible"), *(task(f"not possible {number}", target="npu") for number in range(2)))
    assert ends["possible"].status == "done"
    for name in ("not possible 0", "not possible 1"):
        assert (ends[name].status, ends[name].exit_code) == ("blocked", ProviderError.exit_code)
        assert 'no worker with the resource "npu"' in ends[name].message
        assert '--resources "npu=1"' in ends[name].message
    assert len(said) == 1
    assert "npu" in said[0]
    assert "1 s" in said[0]
    assert [name for name, _ in run.begun] == ["possible"]


def test_a_worker_with_other_versions_is_refused(pair, tmp_path):
    """Naming both, before its process begins."""
    wrong = task("skewed")
    wrong.payload["versions"] = {**versions(), "onnx": "0.1"}
    right = task("equal")
    right.payload["versions"] = versions()
    run = Run(DaskEngine(pair.address), tmp_path)
    ends = run(wrong, right)
    assert (ends["skewed"].status, ends["skewed"].exit_code) == ("blocked", 2)
    assert f"onnx {versions()['onnx']}, the run has 0.1" in ends["skewed"].message
    assert ends["equal"].status == "done"
    assert [name for name, _ in run.begun] == ["equal"]


@pytest.mark.parametrize("alone", [True, False])
def test_tasks_that_are_to_be_alone_share_no_machine(pair, tmp_path, background, alone):
    """Of two workers of one machine the other one waits for its turn; without `alone` it does not."""
    run = Run(DaskEngine(pair.address), tmp_path)
    ends = background.submit(run, *(task(f"timed {number}", "wait_for", name="go") for number in range(2)), alone=alone)
    until(lambda: len(run.begun) == (1 if alone else 2), "they begin")
    if alone:
        time.sleep(1)
        assert len(run.begun) == 1
    Storage(tmp_path).write("go", b"")
    assert {ended.status for ended in ends.result(20).values()} == {"done"}


def test_a_result_that_cannot_be_seen_is_blocked(pair, tmp_path, monkeypatch):
    """As with a folder that the workers have for themselves."""
    monkeypatch.setattr(dask_run, "Storage", lambda _: Storage(tmp_path / "here"))
    ended = Run(DaskEngine(pair.address), tmp_path / "there")(task("unseen"))["unseen"]
    assert (ended.status, ended.exit_code) == ("blocked", 2)
    assert str(tmp_path / "there") in ended.message
    assert "that all machines share" in ended.message


def test_a_relative_folder_is_that_of_the_coordinator(pair, tmp_path, monkeypatch):
    """The workers run elsewhere."""
    monkeypatch.chdir(tmp_path)
    assert Run(DaskEngine(pair.address), Path("out"))(task("relative"))["relative"].status == "done"
    assert len(objects(tmp_path / "out")) == 1


def test_a_worker_that_joins_late_takes_what_waits(bare, tmp_path, background):
    """All of it, for the first one is busy."""
    first = bare.worker()
    run, held = Run(DaskEngine(bare.address), tmp_path), Held(tmp_path)
    ends = background.submit(run, held.task, *(task(f"waiting {number}") for number in range(3)))
    process_of(first)
    late = bare.worker()
    until(lambda: len(run.begun) == 4, "what waited begins")
    held.release()
    assert {ended.status for ended in ends.result(20).values()} == {"done"}
    assert run.begun[0] == ("held", first.pid)
    assert sorted(run.begun[1:]) == [(f"waiting {number}", late.pid) for number in range(3)]


def test_a_task_begins_again_where_its_worker_is_killed(bare, tmp_path, background):
    """Elsewhere, counted, and the process of the lost worker ends."""
    first = bare.worker()
    run, held = Run(DaskEngine(bare.address), tmp_path), Held(tmp_path)
    ends = background.submit(run, held.task)
    lost = process_of(first)
    second = bare.worker()
    first.kill()
    until(lambda: has_ended(lost), "the lost process has ended")
    process_of(second)
    held.release()
    assert ends.result(20)["held"].status == "done"
    assert run.begun == [("held", first.pid), ("held", second.pid)]


def test_a_task_with_which_workers_are_lost_is_given_up(bare, tmp_path, background):
    """After as many as the scheduler allows; another task that was assigned to them is done."""
    run = Run(DaskEngine(bare.address), tmp_path)
    ends = background.submit(run, Held(tmp_path).task, task("other"))
    for _ in range(2):
        worker = bare.worker()
        until(lambda pid=worker.pid: ("held", pid) in run.begun, "the held task begins")
        process_of(worker)
        worker.kill()
    bare.worker()
    found = ends.result(20)
    assert (found["held"].status, found["held"].message) == ("crashed", "worker lost 2 times")
    assert found["other"].status == "done"
    assert [name for name, _ in run.begun].count("held") == 2


@pytest.mark.parametrize(
    ("begun", "given_up", "over"), [(0, 1, False), (1, 1, False), (2, 1, True), (0, 2, False), (0, 3, True)]
)
def test_only_what_began_is_blamed_for_lost_workers(begun, given_up, over):
    """Of which one loss is allowed; Dask blames what was assigned to them, too."""
    assert is_over(begun, given_up, allowed=1) is over


def test_a_worker_without_the_package_says_so(bare, tmp_path):
    """The scheduler never has it in these tests."""
    bare.worker(package=False)
    ended = Run(DaskEngine(bare.address), tmp_path)(task("where"))["where"]
    assert (ended.status, ended.exit_code) == ("blocked", 2)
    assert "a worker lacks what the run needs (no onnxslim_bert): install onnxslim-bert there" in ended.message


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_coordinator_that_ends_takes_its_processes_along(bare, tmp_path, how):
    """Interrupted or killed; the worker is free for another one then."""
    worker = bare.worker()
    arguments = [bare.address, json.dumps(asdict(Held(tmp_path).task)), str(tmp_path)]
    coordinator = subprocess.Popen([sys.executable, "-c", COORDINATOR, *arguments], env=bare.environment)
    process = process_of(worker)
    coordinator.send_signal(how)
    assert coordinator.wait(10) != 0
    until(lambda: has_ended(process), "its process has ended")
    assert Run(DaskEngine(bare.address), tmp_path)(task("next"))["next"].status == "done"


COORDINATOR = """
import json, sys
from onnxslim_bert.cli.signals import ended_by_signals
from onnxslim_bert.zoo.engines.dask_engine import DaskEngine
from onnxslim_bert.zoo.engines.task import Task
with ended_by_signals():
    list(DaskEngine(sys.argv[1]).run([Task(**json.loads(sys.argv[2]))], sys.argv[3], *[lambda *_: None] * 2))
"""


def test_a_lost_scheduler_is_an_error(bare, tmp_path, background):
    """That says what to do; no process stays."""
    worker = bare.worker()
    ends = background.submit(Run(DaskEngine(bare.address), tmp_path), Held(tmp_path).task)
    process = process_of(worker)
    bare.scheduler.kill()
    until(lambda: has_ended(process), "its process has ended")
    with pytest.raises(SlimError, match="scheduler was lost: run again to go on"):
        ends.result(20)


@pytest.mark.parametrize("says", [None, b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_a_scheduler_that_does_not_answer_is_an_error(monkeypatch, background, says):
    """Whether nobody is there, or somebody who says nothing or something else; in the time that is given."""
    monkeypatch.setattr(dask_engine, "CONNECT_S", 1.0)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        if says is not None:
            other.listen()
            background.submit(lambda: other.accept()[0].sendall(says))
        with pytest.raises(SlimError, match=r"no Dask scheduler answered within 1 s .*: start one with"):
            engine_named(f"dask://127.0.0.1:{other.getsockname()[1]}")


def test_an_engine_that_is_named_runs(pair, tmp_path):
    engine = engine_named(f"dask://{pair.address}", patience=7)
    assert isinstance(engine, DaskEngine)
    assert engine.patience == 7
    assert Run(engine, tmp_path)(task("named"))["named"].status == "done"


def test_a_shortage_is_over_when_a_worker_comes():
    """And begins anew when it goes; it is said once."""
    said: list[str] = []
    shortage = Shortage(10, said.append, "there:1")
    plain, both = {"resources": {}}, {"resources": {"qnn": 2}}
    assert shortage.given_up(["cpu", "qnn"], [plain], 0) == {}
    assert len(said) == 1
    assert "qnn" in said[0]
    assert shortage.given_up(["cpu", "qnn"], [plain, both], 9) == {}
    assert shortage.given_up(["cpu", "qnn"], [plain], 11) == {}
    assert list(shortage.given_up(["cpu", "qnn"], [plain], 21)) == ["qnn"]
    assert len(said) == 1
    assert shortage.given_up(["cpu"], [], 30) == {}
    assert said[1] == "dask://there:1 has no worker: needed `dask worker there:1`; waiting 10 s for one"


def test_differences_name_what_is_unlike():
    """What the worker has besides does not matter."""
    assert differences({"a": "1", "b": "2"}, {"a": "1", "b": "2", "c": "3"}) == ""
    assert differences({"a": "1", "b": "2", "c": "3"}, {"a": "1", "b": "9"}) == (
        "b 9, the run has 2, c absent, the run has 3"
    )
