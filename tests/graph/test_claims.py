"""A claim keeps a second job off an output, and ends with its process, however that ends."""

import contextlib
import errno
import fcntl
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from command_line import environment

from onnxslim_bert.errors import OutputError
from onnxslim_bert.graph.claims import LOCK, PREFIX, claimed, remove_dead, scratch

HOLDS = """
import sys, time
from pathlib import Path
from onnxslim_bert.graph.claims import claimed
with claimed(Path(sys.argv[1])) as folder:
    (folder / "half.onnx").write_bytes(b"half")
    print(folder, flush=True)
    time.sleep(60)
"""


def holder(output: Path) -> tuple[subprocess.Popen[str], Path]:
    """A process that claims `output`, and the folder that it has."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(output)], stdout=subprocess.PIPE, text=True, env=environment()
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_a_folder_beside_the_output_gone_in_the_end(tmp_path):
    with claimed(tmp_path / "o.onnx") as folder:
        (folder / "x").write_text("x")
        assert folder.parent == tmp_path
        assert folder.name.startswith(PREFIX)
    assert list(tmp_path.iterdir()) == []


def test_one_output_has_one_job_and_others_have_theirs(tmp_path):
    with claimed(tmp_path / "o.onnx"), claimed(tmp_path / "p.onnx"):
        with pytest.raises(OutputError, match=r"o\.onnx: another run is writing it"), claimed(tmp_path / "o.onnx"):
            pass
        assert len(list(tmp_path.iterdir())) == 2
    with claimed(tmp_path / "o.onnx"):
        pass


def test_another_process_is_kept_off_until_it_is_dead(tmp_path):
    """Killed, it leaves its folder; the next job, on any output beside it, removes that."""
    process, left = holder(tmp_path / "o.onnx")
    try:
        with pytest.raises(OutputError, match="another run is writing it"), claimed(tmp_path / "o.onnx"):
            pass
        assert (left / "half.onnx").exists()
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert left.exists()
    with claimed(tmp_path / "p.onnx"):
        assert not left.exists()
    with claimed(tmp_path / "o.onnx") as folder:
        assert [path.name for path in folder.iterdir()] == [LOCK]


def test_only_claims_are_removed(tmp_path):
    """Somebody's folder whose name begins alike stays, and so does where a link leads."""
    mine, elsewhere = tmp_path / f"{PREFIX}mine", tmp_path / "elsewhere"
    for folder in (mine, elsewhere):
        folder.mkdir()
        (folder / "file").write_text("mine")
    (elsewhere / LOCK).touch()
    (tmp_path / f"{PREFIX}link").symlink_to(elsewhere)
    with claimed(tmp_path / "o.onnx"):
        pass
    assert (mine / "file").exists()
    assert (elsewhere / "file").exists()


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_what_lies_under_the_name_of_a_claim_stays(tmp_path, kind):
    """If it does not carry the mark of one."""
    theirs = tmp_path / ("theirs" if kind == "link" else f"{PREFIX}o.onnx")
    theirs.mkdir()
    (theirs / "thesis").write_text("mine")
    if kind == "link":
        (tmp_path / f"{PREFIX}o.onnx").symlink_to(theirs)
    with pytest.raises(OutputError, match=r"\.onnxslim-o\.onnx is in the way"), claimed(tmp_path / "o.onnx"):
        pass
    assert (theirs / "thesis").read_text() == "mine"


def test_a_link_and_what_it_leads_to_have_one_claim(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "link.onnx").symlink_to("deep/real.onnx")
    with claimed(tmp_path / "link.onnx") as folder:
        assert folder.parent.samefile(tmp_path / "deep")
        with pytest.raises(OutputError, match="another run"), claimed(tmp_path / "deep" / "real.onnx"):
            pass


def test_temporary_folders_of_killed_processes_go(tmp_path, monkeypatch):
    """When the next one is made; those of living processes stay."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    child = os.fork()
    if not child:
        with scratch() as folder:
            (folder / "half").write_text("half")
            os._exit(9)
    os.waitpid(child, 0)
    assert len(list(tmp_path.iterdir())) == 1
    with scratch() as one, scratch() as other:
        assert {path.name for path in tmp_path.iterdir()} == {one.name, other.name}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("moment", ["not locked yet", "locked by who removes it"])
def test_a_new_folder_that_another_process_takes_for_dead_is_made_again(tmp_path, monkeypatch, moment):
    """Between the making of a folder and its lock, others clean up."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    make, seen = tempfile.mkdtemp, list[Path]()

    with contextlib.ExitStack() as stack:

        def interrupted(**options: object) -> str:
            seen.append(folder := Path(make(**options)))
            if len(seen) == 1 and moment == "not locked yet":
                remove_dead(tmp_path)
                assert not folder.exists()
            elif len(seen) == 1:
                fcntl.flock(stack.enter_context((folder / LOCK).open("ab")), fcntl.LOCK_EX)
            return str(folder)

        monkeypatch.setattr(tempfile, "mkdtemp", interrupted)
        with scratch() as folder:
            (folder / "row").touch()
            stack.close()
            remove_dead(tmp_path)
            assert (folder / "row").exists()
        assert not folder.exists()


def test_room_for_temporary_files_is_asked_for_before(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(OutputError, match=r"MB free, and 1000000000.0 MB are needed\); set TMPDIR"), scratch(10**15):
        pass
    with pytest.raises(OutputError, match=r"no room for temporary files \(No space left on device\)"), scratch():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert list(tmp_path.iterdir()) == []


def test_a_name_as_long_as_names_may_be(tmp_path):
    with claimed(tmp_path / ("n" * 255)) as folder:
        assert folder.is_dir()


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere")
def test_a_folder_that_cannot_be_written(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="cannot be written"), claimed(tmp_path / "o.onnx"):
        pass
