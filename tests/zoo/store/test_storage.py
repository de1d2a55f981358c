"""Files in a folder and in an object store: what is written is read, whole, and nothing lies outside."""

import shutil
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import numpy as np
import onnx
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from graphs import fixture
from onnx import numpy_helper

from onnxslim_bert.errors import DataError, ModelError, SlimError, StorageError
from onnxslim_bert.zoo.store import storage as storage_module
from onnxslim_bert.zoo.store.opened import opened
from onnxslim_bert.zoo.store.storage import Storage


class Renaming(MemoryFileSystem):
    """Stands for a file server: what is put grows under its name while it is read. done: what was asked of it."""

    protocol = "renaming"
    store: dict = {}  # noqa: RUF012
    pseudo_dirs = [""]  # noqa: RUF012
    done: list = []  # noqa: RUF012

    def put_file(self, lpath, rpath, **options):
        self.done.append(("put", rpath))
        super().put_file(lpath, rpath, **options)

    def mv(self, path1, path2, **options):
        self.done.append(("mv", path1, path2))
        super().mv(path1, path2, **options)

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("renaming://", "memory://"))


fsspec.register_implementation("renaming", Renaming, clobber=True)
fsspec.register_implementation(
    "driverless", "no_such_module.Files", clobber=True, errtxt="Install driverless to use it"
)


@pytest.fixture(params=["folder", "file://", "memory://", "renaming://"])
def storage(request, tmp_path):
    scheme = "" if request.param == "folder" else request.param
    place = Storage(f"{scheme}{tmp_path}/out")
    yield place
    place.delete("objects")


def test_what_is_written_is_read(storage):
    """Content by name, over another one too, below folders that come by themselves."""
    storage.write("objects/a/result.json", b"old")
    storage.write("objects/a/result.json", b"new")
    storage.write("objects/a/deep/empty", b"")
    storage.write("objects/b/model.onnx", b"12345")

    assert storage.read("objects/a/result.json") == b"new"
    assert storage.read("objects/a/deep/empty") == b""
    assert storage.names("objects/a") == ["objects/a/deep/empty", "objects/a/result.json"]
    assert storage.sizes("objects") == {
        "objects/a/deep/empty": 0,
        "objects/a/result.json": 3,
        "objects/b/model.onnx": 5,
    }


def test_what_is_not_there_is_none(storage):
    """No file is no error where one asks whether it is there; it is one where its content is needed."""
    assert storage.read("objects/a") is None
    assert not storage.exists("objects/a")
    assert storage.names("objects") == []
    storage.delete("objects/a")
    with pytest.raises(StorageError, match=r"out/objects/a: cannot be read \(no such file\)"):
        storage.fetch("objects/a", Path("never"))


def test_deleting_takes_a_file_or_a_folder(storage):
    """And nothing beside it, also where one name starts with the other."""
    for name in ("objects/a/x", "objects/a/y", "objects/ab", "objects/c"):
        storage.write(name, b"1")
    storage.delete("objects/a")
    storage.delete("objects/c")
    assert storage.names("objects") == ["objects/ab"]
    assert not storage.exists("objects/a")


def test_another_object_sees_it_at_once(storage):
    """Two processes have an object each: a list that one has made does not go stale."""
    other = Storage(storage.url)
    assert other.names("objects") == []
    storage.write("objects/a", b"1")
    assert other.names("objects") == ["objects/a"]
    assert other.exists("objects/a")
    assert abs(other.modified("objects/a") - time.time()) < 60


@pytest.mark.parametrize("move", [False, True])
def test_files_are_put_and_fetched(storage, tmp_path, move):
    """A copy leaves the file where it is."""
    file = tmp_path / "given"
    file.write_bytes(b"weights")
    storage.put("objects/a/model.onnx", file, move=move)
    storage.fetch("objects/a/model.onnx", tmp_path / "fetched")
    assert (tmp_path / "fetched").read_bytes() == b"weights"
    assert move or file.read_bytes() == b"weights"


def test_a_moved_file_is_renamed_not_copied(tmp_path):
    """It is the same file; what a link points to is not carried off."""
    place = Storage(tmp_path / "out")
    (tmp_path / "file").write_bytes(b"weights")
    inode = (tmp_path / "file").stat().st_ino
    place.put("objects/a", tmp_path / "file", move=True)
    assert (tmp_path / "out/objects/a").stat().st_ino == inode

    (tmp_path / "aim").write_bytes(b"elsewhere")
    (tmp_path / "link").symlink_to(tmp_path / "aim")
    place.put("objects/b", tmp_path / "link", move=True)
    assert (tmp_path / "aim").is_file()
    assert not (tmp_path / "out/objects/b").is_symlink()


@pytest.mark.parametrize(
    "name", ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a/", ".hidden", "a/.b", "a\\..\\b", "C:x", "a\0b"]
)
def test_names_stay_inside(storage, name):
    """Whatever a name may come from."""
    for act in (storage.read, storage.delete, storage.names, lambda name: storage.write(name, b"")):
        with pytest.raises(DataError, match="is no name for a file in"):
            act(name)


def test_a_reader_sees_all_or_nothing(tmp_path):
    """While one file is written over again and again, each reading is one of its contents."""
    place, contents, seen = Storage(tmp_path), [bytes([i]) * 300_000 for i in range(7)], []
    place.write("cache/a", contents[0])
    over = threading.Event()

    def read() -> None:
        while not over.is_set():
            seen.append(place.read("cache/a"))

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(10):
        for content in contents:
            place.write("cache/a", content)
    over.set()
    reader.join()
    assert len(seen) > 10
    assert set(seen) <= set(contents)


def test_a_write_that_fails_changes_nothing(tmp_path, monkeypatch):
    """The old content stays, and no temporary file."""
    place = Storage(tmp_path)
    place.write("objects/a", b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage_module.os, "fsync", full)
    with pytest.raises(StorageError, match=r"objects/a: cannot be written \(No space left on device\)"):
        place.write("objects/a", b"new")
    assert place.read("objects/a") == b"old"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / "objects/a"]


def test_a_file_server_gets_a_temporary_name_first(tmp_path):
    """Its files grow under their names; an object store's do not, and a rename there would be a copy."""
    Renaming.done.clear()
    Storage(f"renaming://{tmp_path}/out").write("objects/a", b"1")
    (_, temporary), (_, source, target) = Renaming.done
    assert temporary == source
    assert Path(temporary).name.startswith(".")
    assert target.endswith("/out/objects/a")


def test_only_a_folder_has_local_files(tmp_path):
    """Where a file is that can be opened as it is."""
    assert Storage(tmp_path).local("objects/a") == tmp_path / "objects/a"
    assert Storage(tmp_path.as_uri()).local("objects/a") == tmp_path / "objects/a"
    assert Storage("memory://zoo").local("objects/a") is None
    assert Storage("memory://zoo").folder is None


def test_a_relative_folder_is_that_of_now(tmp_path, monkeypatch):
    """A process that changes its folder later does not lose the storage."""
    monkeypatch.chdir(tmp_path)
    place = Storage("out")
    monkeypatch.chdir("/")
    place.write("objects/a", b"1")
    assert (tmp_path / "out/objects/a").is_file()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense://x", r"nonsense://x: cannot be opened \(Protocol not known: nonsense\)"),
        ("driverless://x", "driverless://x: Install driverless to use it, with pip install"),
    ],
)
def test_a_url_that_nothing_opens_is_refused(url, message):
    """In one line that names it."""
    with pytest.raises(StorageError, match=message):
        Storage(url)


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    """With the name of what could not be written."""
    (tmp_path / "out").write_text("")
    with pytest.raises(StorageError, match=r"out/\w+: cannot be written \((Not a directory|File exists)\)"):
        Storage(tmp_path / "out").write("objects/a", b"1")


def test_a_workspace_goes_with_its_block(storage):
    """With everything in it, and where the storage is a folder it lies there."""
    with storage.workspace() as folder:
        (folder / "x").write_text("1")
        assert storage.folder is None or folder.is_relative_to(storage.folder)
    assert not folder.exists()
    assert storage.names("objects") == []


@pytest.fixture
def zoo_in_memory():
    """An encoder with external data at memory://models, its tokenizer beside it."""
    place = Storage("memory://models")
    model = onnx.load(fixture("bert-dynamo20-sdpa"))
    weight = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    place.write("weights.bin", weight.raw_data)
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="weights.bin")
    place.write("model.onnx", model.SerializeToString())
    place.write("tokenizer.json", b"{}")
    yield place, model
    for name in ("model.onnx", "weights.bin", "tokenizer.json"):
        place.delete(name)


def test_a_model_is_fetched_with_what_it_needs(zoo_in_memory):
    """Weights and tokenizer come along, and go with the block."""
    with opened("memory://models/model.onnx") as path:
        assert path.name == "model.onnx"
        whole, original = onnx.load(path), onnx.load(fixture("bert-dynamo20-sdpa"))
        assert (path.parent / "tokenizer.json").read_bytes() == b"{}"
        for got, asked in zip(whole.graph.initializer, original.graph.initializer, strict=True):
            assert np.array_equal(numpy_helper.to_array(got), numpy_helper.to_array(asked))
    assert not path.parent.exists()


def test_a_local_model_is_opened_where_it_is(tmp_path):
    """As a path and as a URL; whether it is there is for its reader to say."""
    shutil.copy(fixture("bert-dynamo20-sdpa"), tmp_path / "a model.onnx")
    for source in (str(tmp_path / "a model.onnx"), f"file://{tmp_path}/a model.onnx"):
        with opened(source) as path:
            assert path == tmp_path / "a model.onnx"
    assert path.is_file()


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "a/../../secret"])
def test_external_data_elsewhere_is_not_fetched(zoo_in_memory, location):
    """A model cannot make this write outside of its folder."""
    place, model = zoo_in_memory
    tensor = next(tensor for tensor in model.graph.initializer if tensor.external_data)
    tensor.external_data[0].value = location
    place.write("model.onnx", model.SerializeToString())
    with (
        pytest.raises(ModelError, match="outside the model's folder"),
        opened(f"{place.url}/model.onnx"),
    ):
        pass


@pytest.mark.parametrize("missing", ["model.onnx", "weights.bin"])
def test_a_model_that_is_not_there_is_named(zoo_in_memory, missing):
    """The model or one of its files."""
    zoo_in_memory[0].delete(missing)
    with pytest.raises(ModelError, match=f"{missing}: cannot be read"), opened("memory://models/model.onnx"):
        pass


def test_a_store_that_does_not_answer_has_lost_no_model(tmp_path):
    """It may answer the next time; one that says that there is none has none."""
    pytest.importorskip("aiohttp", reason="fsspec reads http with it")

    class Server(BaseHTTPRequestHandler):
        code = 503

        def do_GET(self) -> None:
            self.send_error(self.code)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/model.onnx"
        with pytest.raises(StorageError, match=r"model\.onnx: cannot be read"), opened(url):
            pass
        Server.code = 404
        with pytest.raises(ModelError, match="no complete model"), opened(url):
            pass
        server.shutdown()


def test_every_error_is_one_that_a_user_can_act_on(monkeypatch):
    """File systems have errors of their own: a store's is not a traceback."""

    class NoCredentialsError(Exception):
        pass

    def deny(*_: object, **__: object) -> None:
        raise NoCredentialsError("unable to locate credentials")

    monkeypatch.setattr(MemoryFileSystem, "find", deny)
    with pytest.raises(SlimError, match=r"memory://zoo/objects: cannot be listed \(unable to locate credentials\)"):
        Storage("memory://zoo").names("objects")
