"""Named sets come from the hub, by its own rules, and every refusal is one line with a way out."""

import hashlib
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from onnxslim_bert.calibration.hub import find_file
from onnxslim_bert.errors import DataError

COMMIT = "c0ffee" + "0" * 34
FILE = "/datasets/nyu-mll/glue/resolve/main/sst2/train-00000-of-00001.parquet"
TOKEN = "hf_" + "a" * 34


@dataclass
class Hub:
    """What the server answers with, and the requests that it saw as 'METHOD path'."""

    files: dict[str, bytes] = field(default_factory=dict)
    status: int = 200
    error_code: str = ""
    token: str = ""
    silent: threading.Event | None = None
    seen: list[str] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A server on loopback that answers as the hub does: /resolve/ redirects to storage on another host name."""
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    pytest.importorskip("huggingface_hub")
    parquet = io.BytesIO()
    pq.write_table(pa.table({"sentence": ["good", "bad"], "label": [1, 0], "idx": [0, 1]}), parquet)
    hub = Hub({FILE: parquet.getvalue()})

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer()

        def do_HEAD(self) -> None:
            self.answer()

        def answer(self) -> None:
            hub.seen.append(f"{self.command} {self.path}")
            if hub.silent:
                hub.silent.wait(20)
            authorization = self.headers["Authorization"]
            if self.path.startswith("/storage"):
                # A signed address on another host, which must not be shown the token.
                self.reply(403 if authorization else 200, hub.files[self.path.removeprefix("/storage")], {})
            elif hub.token and authorization != f"Bearer {hub.token}":
                self.reply(401, b"", {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted."})
            elif hub.status != 200:
                self.reply(hub.status, b"", {"X-Error-Code": hub.error_code} if hub.error_code else {})
            elif self.path in hub.files:
                content = hub.files[self.path]
                headers: dict[str, str | int] = {
                    "Location": f"{hub.url.replace('127.0.0.1', 'localhost')}/storage{self.path}",
                    "X-Repo-Commit": COMMIT,
                    "X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"',
                    "X-Linked-Size": len(content),
                }
                self.reply(302, b"", headers)
            else:
                self.reply(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})

        def reply(self, status: int, body: bytes, headers: dict[str, str | int]) -> None:
            self.send_response(status)
            for name, value in (headers | {"Content-Length": len(body)}).items():
                self.send_header(name, str(value))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hub.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield hub
        server.shutdown()


def load(home: Path, url: str, **settings: str) -> tuple[str, str]:
    """(texts as JSON, '') or ('', message) from a process that loads SST-2; the hub reads its settings at the start."""
    program = (
        "import json, sys\n"
        "from onnxslim_bert.calibration.loading import load_dataset\n"
        "from onnxslim_bert.errors import DataError\n"
        "try:\n"
        "    print(json.dumps(load_dataset('sst2', 'calibration').texts))\n"
        "except DataError as error:\n"
        "    sys.exit(str(error))\n"
    )
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "ONNXSLIM_"))}
    hub = {"HF_HOME": str(home), "HF_ENDPOINT": url, "NO_PROXY": "*", "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run(
        [sys.executable, "-c", program],
        env=inherited | hub | settings,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return result.stdout.strip(), result.stderr.strip()


def test_a_set_is_downloaded_once(hub: Hub, tmp_path: Path) -> None:
    """The redirect is followed, the file lands in the hub's cache, and from there it needs no network."""
    expected = json.dumps([["good"], ["bad"]])
    assert load(tmp_path, hub.url) == (expected, "")
    assert f"GET /storage{FILE}" in hub.seen
    assert list(tmp_path.glob(f"hub/datasets--nyu-mll--glue/snapshots/{COMMIT}/sst2/*.parquet"))

    hub.seen.clear()
    assert load(tmp_path, hub.url) == (expected, "")
    assert load(tmp_path, "http://127.0.0.1:9", HF_HUB_OFFLINE="1") == (expected, "")
    assert hub.seen == []


def test_a_gated_set_needs_the_token(hub: Hub, tmp_path: Path) -> None:
    hub.token = TOKEN
    _, message = load(tmp_path, hub.url)
    assert "access refused (401): log in with 'hf auth login' or set HF_TOKEN" in message
    assert "\n" not in message
    assert load(tmp_path, hub.url, HF_TOKEN=TOKEN)[0] == json.dumps([["good"], ["bad"]])


@pytest.mark.parametrize(("status", "code"), [(404, "RepoNotFound"), (404, "EntryNotFound"), (500, ""), (503, "")])
def test_an_error_of_the_server_is_one_line(hub: Hub, tmp_path: Path, status: int, code: str) -> None:
    """It names the address and the status, and the ways to go on without the hub."""
    hub.status, hub.error_code = status, code
    _, message = load(tmp_path, hub.url)
    assert message.startswith(f"'sst2' from {hub.url}{FILE}: the server answered {status}")
    assert message.endswith("or put train.tsv into $ONNXSLIM_DATA/sst2, or use the built-in set 'reviews'")
    assert "\n" not in message


def test_offline_is_respected(hub: Hub, tmp_path: Path) -> None:
    _, message = load(tmp_path, hub.url, HF_HUB_OFFLINE="1")
    assert "not in the hub's cache, and HF_HUB_OFFLINE is set" in message
    assert "\n" not in message
    assert hub.seen == []


def test_a_silent_server_is_given_up(hub: Hub, tmp_path: Path) -> None:
    hub.silent = threading.Event()
    _, message = load(tmp_path, hub.url, HF_HUB_ETAG_TIMEOUT="1")
    hub.silent.set()
    assert "Timeout" in message
    assert "check the connection" in message
    assert "\n" not in message


def test_a_server_that_is_not_there_is_given_up(hub: Hub, tmp_path: Path) -> None:
    _, message = load(tmp_path, "http://127.0.0.1:9")
    assert "check the connection" in message
    assert "\n" not in message


def test_a_broken_file_is_refused(hub: Hub, tmp_path: Path) -> None:
    hub.files[FILE] = b"PAR1 and then nothing"
    _, message = load(tmp_path, hub.url)
    assert "not parquet" in message
    assert "\n" not in message


def test_a_local_file_comes_first(hub: Hub, tmp_path: Path) -> None:
    """With $ONNXSLIM_DATA/sst2/train.tsv the hub is never asked; without it, it is."""
    local = tmp_path / "sst2" / "train.tsv"
    local.parent.mkdir()
    local.write_text("sentence\tlabel\nlocal\t1\n")
    assert load(tmp_path / "home", hub.url, ONNXSLIM_DATA=str(tmp_path))[0] == json.dumps([["local"]])
    assert hub.seen == []
    local.unlink()
    assert load(tmp_path / "home", hub.url, ONNXSLIM_DATA=str(tmp_path))[0] == json.dumps([["good"], ["bad"]])


def test_without_the_extra_the_message_names_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ONNXSLIM_DATA", str(tmp_path))
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(DataError, match=r"pip install 'onnxslim-bert\[hub\]', or put train.tsv into"):
        find_file("sst2", "train")
