"""Results in an object store: moto's S3, over HTTP on this machine, used by other processes through fsspec."""

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec
import pytest

pytest.importorskip("s3fs", reason="needs the extra [test]")
pytest.importorskip("moto.server", reason="needs the extra [test]")

import s3fs
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

from onnxslim_bert.errors import StorageError
from onnxslim_bert.zoo.engines import process
from onnxslim_bert.zoo.engines.local import LocalEngine
from onnxslim_bert.zoo.engines.task import Ended, Engine, Task
from onnxslim_bert.zoo.store.storage import Storage, result_name

BUCKET = "models"


@pytest.fixture(autouse=True)
def _in_new_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fork would share the server and its threads."""
    monkeypatch.setattr(process, "start", process.in_new_python)


@dataclass
class Refusing:
    """A server in front of another one. It refuses requests of these methods with the word in their URL."""

    server: Callable[[dict[str, Any], Callable[..., object]], Iterable[bytes]]
    methods: tuple[str, ...] = ()
    word: str = ""
    refused: list[str] = field(default_factory=list)

    def __call__(self, request: dict[str, Any], answer: Callable[..., object]) -> Iterable[bytes]:
        url = f"{request['PATH_INFO']}?{request['QUERY_STRING']}"
        if request["REQUEST_METHOD"] in self.methods and self.word in url:
            self.refused.append(url)
            request["wsgi.input"].read(int(request.get("CONTENT_LENGTH") or 0))
            answer("403 Forbidden", [("Content-Length", "0")])
            return []
        return self.server(request, answer)


class Quiet(WSGIRequestHandler):
    """Without a line for each request."""

    def log_request(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[Refusing, str]]:
    """The store and its URL."""
    refusing = Refusing(DomainDispatcherApplication(create_backend_app))
    listening = make_server("127.0.0.1", 0, refusing, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    yield refusing, f"http://127.0.0.1:{listening.server_port}"
    listening.shutdown()
    thread.join()


@pytest.fixture
def store(server, monkeypatch, request) -> Iterator[tuple[Refusing, str]]:
    """The store, refusing nothing, and the URL of a place in it; processes find it by their environment."""
    refusing, endpoint = server
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3fs.S3FileSystem.clear_instance_cache()
    fsspec.filesystem("s3").mkdirs(BUCKET, exist_ok=True)
    refusing.refused.clear()
    yield refusing, f"s3://{BUCKET}/{hashlib.sha256(request.node.name.encode()).hexdigest()[:12]}"
    refusing.methods = ()
    s3fs.S3FileSystem.clear_instance_cache()


def task(name: str, **payload: object) -> Task:
    return Task(hashlib.sha256(name.encode()).hexdigest(), "tasks:write", name, payload)


def run(engine: Engine, storage: str, *tasks: Task) -> list[Ended]:
    return list(engine.run(tasks, storage, lambda *_: None, lambda *_: None))


TASKS = [task(f"made {number}", files={"a": "a" * number, "b/c.txt": "c"}, value=number) for number in range(3)]


def test_processes_of_this_machine_leave_their_results_there(store, tmp_path):
    """The same files with the same bytes as in a folder, read by another process."""
    _, url = store
    assert {ended.status for ended in run(LocalEngine(2), url, *TASKS)} == {"done"}
    run(LocalEngine(2), str(tmp_path), *TASKS)
    assert contents(url) == contents(tmp_path)
    assert len(contents(url)) == 9


def test_a_dask_worker_leaves_its_results_there(store, tmp_path):
    """And the coordinator sees them."""
    pytest.importorskip("distributed", reason="needs the extra [dask]")
    from dask_cluster import cluster

    from onnxslim_bert.zoo.engines.dask_engine import DaskEngine

    _, url = store
    with cluster(tmp_path / "cluster") as found:
        found.worker()
        (ended,) = run(DaskEngine(found.address), url, TASKS[0])
    assert ended.status == "done"
    run(LocalEngine(1), str(tmp_path / "local"), TASKS[0])
    assert contents(url) == contents(tmp_path / "local")


def contents(storage: str | Path) -> dict[str, bytes | None]:
    place = Storage(storage)
    return {name: place.read(name) for name in place.names("objects")}


@pytest.mark.parametrize("word", ["c.txt", "result.json"])
def test_a_put_that_fails_midway_leaves_no_result(store, word):
    """The task is blocked, and says where; asked again, it is done."""
    refusing, url = store
    refusing.methods, refusing.word = ("PUT",), word
    (ended,) = run(LocalEngine(1), url, TASKS[0])
    assert refusing.refused
    assert (ended.status, ended.exit_code) == ("blocked", StorageError.exit_code)
    assert url in ended.message
    assert word in ended.message
    refusing.methods = ()
    assert not Storage(url).exists(result_name(ended.key))
    assert [ended.status for ended in run(LocalEngine(1), url, TASKS[0])] == ["done"]
    assert Storage(url).exists(result_name(ended.key))


def test_a_listing_that_fails_is_an_error(store):
    """And not an empty one."""
    refusing, url = store
    Storage(url).write("objects/a/b", b"")
    refusing.methods, refusing.word = ("GET",), "list-type"
    with pytest.raises(StorageError, match=f"{url}/objects: cannot be listed"):
        Storage(url).names("objects")
    assert refusing.refused


@pytest.mark.parametrize("ask", [Storage.exists, Storage.read])
def test_a_store_that_does_not_say_is_an_error(store, ask):
    """A result that may not be seen does not count as missing."""
    refusing, url = store
    Storage(url).write("objects/a/b", b"")
    refusing.methods, refusing.word = ("HEAD", "GET"), "objects"
    with pytest.raises(StorageError, match=f"{url}/objects/a/b: cannot be read"):
        ask(Storage(url), "objects/a/b")
