"""Too little memory is one line that says how much is needed."""

import ctypes
import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import environment, run_python, workspace

from onnxslim_bert import memory
from onnxslim_bert.errors import ModelError, SlimError
from onnxslim_bert.memory import ADDRESSES, MB, check_memory, check_threads, is_shortage, shortage


def limited(nbytes: int, *arguments: object, kind: int = resource.RLIMIT_AS) -> subprocess.CompletedProcess[str]:
    """`onnxslim ARGUMENTS` with so many bytes of addresses, or of data."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "onnxslim_bert", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=60,
        check=False,
        preexec_fn=lambda: resource.setrlimit(kind, (nbytes, nbytes)),
    )


@pytest.mark.parametrize("allowed", [60, 100, 140, 180, 220, 260])
def test_less_than_the_libraries_take_is_said_before_they_are_imported(tmp_path, allowed):
    """They would end the process, or half import."""
    ended = limited(allowed * MB, "inspect", workspace(tmp_path))
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == f"onnxslim: at least 420 MB of memory are needed, and ulimit -v allows {allowed} MB\n"


@pytest.mark.parametrize("allowed", [40, 60, 90, 130])
def test_so_is_too_little_data(tmp_path, allowed):
    ended = limited(allowed * MB, "verify", workspace(tmp_path), kind=resource.RLIMIT_DATA)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == f"onnxslim: at least 150 MB of memory are needed, and ulimit -d allows {allowed} MB\n"


def test_help_needs_little():
    assert limited(100 * MB, "--help").returncode == 0


def test_threads_that_would_never_start_are_not_begun(tmp_path):
    """ONNX Runtime would wait for them for ever, and hear no signal."""
    model = workspace(tmp_path)
    ended = limited(1500 * MB, "quantize", model, "--mode", "dynamic", "--threads", "1024")
    assert ended.returncode == 2
    assert "1024 threads need about" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert not list(tmp_path.glob("*int8*"))


def test_threads_that_there_is_room_for(monkeypatch):
    monkeypatch.setattr(memory, "_ulimit", lambda kind: None)
    check_threads(1 << 20)
    monkeypatch.setattr(memory, "_ulimit", lambda kind: ADDRESSES + memory.thread_bytes(8))
    check_threads(8)
    with pytest.raises(SlimError, match="9 threads need about"):
        check_threads(9)
    monkeypatch.setattr(memory, "_ulimit", lambda kind: 1)
    check_threads(1)  # a session on one thread starts none


@pytest.mark.parametrize(
    ("kinds", "name", "file"),
    [
        ("", "/a/b", "a/b/memory.max"),
        ("", "/a/b", "a/memory.max"),
        ("", "/", "memory.max"),
        ("memory", "/a", "memory/a/memory.limit_in_bytes"),
        ("memory", "/gone", "memory/memory.limit_in_bytes"),
    ],
)
def test_the_limits_of_control_groups_are_read(tmp_path, monkeypatch, kinds, name, file):
    """Of both versions, and of the groups above."""
    (tmp_path / "self").write_text(f"3:cpu:/x\n0:{kinds}:{name}\n")
    place = tmp_path / "groups" / file
    place.parent.mkdir(parents=True)
    place.write_text(f"{150 * MB}\n")
    monkeypatch.setattr(memory, "CGROUPS", tmp_path / "groups")
    monkeypatch.setattr(memory, "OWN_GROUPS", tmp_path / "self")
    with pytest.raises(SlimError, match=r"at least 200 MB .* the control group \(cgroup\) allows 150 MB"):
        check_memory()
    for unlimited in ("max\n", f"{1 << 62}\n"):
        place.write_text(unlimited)
        check_memory()


def test_free_memory_is_asked_for(tmp_path, monkeypatch):
    file = tmp_path / "meminfo"
    file.write_text("MemTotal: 9000000 kB\nMemAvailable: 100000 kB\nSwapFree: 10000 kB\n")
    monkeypatch.setattr(memory, "MEMINFO", file)
    with pytest.raises(SlimError, match="this machine has free 113 MB"):
        check_memory()
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "none")
    check_memory()


def raised_from(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
        RuntimeError("std::bad_alloc"),
        ImportError("libfoo.so: failed to map segment from shared object"),
        raised_from(ModelError("m.onnx: cannot be read"), OSError(errno.ENOMEM, "")),
    ],
)
def test_a_shortage_is_known_under_any_name(error):
    assert is_shortage(error)
    assert not is_shortage(ModelError("m.onnx: the file is empty"))


def test_errors_that_were_raised_from_each_other_end():
    first, second = ModelError("no"), ModelError("not either")
    first.__cause__, second.__context__ = second, first
    assert not is_shortage(first)


def test_what_is_said_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The tightest limit, and what the largest model needs; files of weights count."""
    monkeypatch.setattr(memory, "_limits", lambda: iter([memory.Limit(500 * MB, "ulimit -v allows", ADDRESSES)]))
    model, weights = tmp_path / "m.onnx", tmp_path / "m.onnx.data"
    model.write_bytes(bytes(2 * MB))
    weights.write_bytes(bytes(8 * MB))
    assert shortage(["quantize", str(model)]) == f"out of memory: ulimit -v allows 500 MB; {model} needs about 470 MB"
    monkeypatch.setattr(memory, "_limits", lambda: iter(()))
    assert shortage(["passes"]) == "out of memory; free some and run it again"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_freed_memory_is_given_back():
    """A C library keeps 100 MB in small blocks where the last of them is in use; glibc gives them back when asked."""
    if not hasattr(ctypes.CDLL(None), "malloc_trim"):
        pytest.skip("the C library is not glibc")
    said = """if True:
        from pathlib import Path
        from onnxslim_bert.memory import give_back
        held = [bytes([1]) * 100_000 for _ in range(1000)]
        del held[:-1]
        for _ in range(2):
            print(Path("/proc/self/statm").read_text().split()[1])
            give_back()
    """
    before, after = (int(pages) * resource.getpagesize() for pages in run_python(said).split())
    assert before - after > 60 * MB
