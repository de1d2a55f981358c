"""The emulator of 64-bit ARM: its set-up, and a model that runs in it where it is set up."""

import os

import numpy as np
import pytest
from command_line import run, workspace
from graphs import feeds, fixture, prepared
from oracles import answers

from onnxslim_bert.errors import ProviderError
from onnxslim_bert.targets.arm64 import emulator
from onnxslim_bert.targets.session import open_on
from onnxslim_bert.targets.table import EMULATED

PROGRAMS = {  # as the real ones, as far as they are asked
    "apt-get": """case "$*" in
*indextargets*) echo "mirror:/debian amd64" ;;
*install*)
    for word in "$@"; do
        case $word in Dir::Cache=*) touch "${word#Dir::Cache=}/archives/one.deb" ;; esac
    done ;;
esac""",
    "dpkg-deb": 'mkdir -p "$3/usr/bin" "$3/usr/lib" && touch "$3/usr/bin/qemu-aarch64"',
}


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Stand-ins for apt-get and dpkg-deb, and an empty cache."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, script in PROGRAMS.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(emulator.sys, "executable", str(folder / "python"))
    (folder / "python").write_text('#!/bin/sh\nmkdir "$6"\n')
    (folder / "python").chmod(0o755)
    return folder


def test_it_is_set_up_whole_and_once(programs):
    said = []
    root = emulator.set_up(said.append)
    assert sorted(path.name for path in root.iterdir()) == ["packages", "qemu-aarch64", "system"]
    assert (root / "system" / "lib").resolve() == root / "system" / "usr" / "lib"
    assert [path.name for path in root.parent.iterdir()] == [root.name]
    assert emulator.command("max")[0] == str(root / "qemu-aarch64")
    assert len(said) == 4
    assert emulator.set_up(said.append) == root
    assert len(said) == 4


@pytest.mark.parametrize("name", [*PROGRAMS, "python"])
def test_a_program_that_fails_leaves_nothing(programs, name):
    (programs / name).write_text("#!/bin/sh\necho no space >&2\nexit 1\n")
    with pytest.raises(ProviderError, match=f"{name} failed while the emulator of arm64 was set up: no space"):
        emulator.set_up(lambda step: None)
    assert list(emulator.folder().parent.iterdir()) == []


def test_a_system_without_apt_is_told_what_is_needed(programs, monkeypatch):
    monkeypatch.setenv("PATH", str(programs.parent))
    with pytest.raises(ProviderError, match="apt-get is not here: needed apt-get and dpkg-deb"):
        emulator.set_up(lambda step: None)


def test_without_it_a_command_says_how_to_set_it_up(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    model = workspace(tmp_path)
    outcome = run("validate", model, model, "--data", tmp_path / "eval.tsv", "--ep", "cpu@arm64")
    assert outcome.code == 5
    assert "`onnxslim doctor --set-up-arm64`" in outcome.err
    assert outcome.err.count("\n") == 1


@pytest.mark.skipif(not emulator.folder().is_dir(), reason="no emulator: onnxslim doctor --set-up-arm64")
@pytest.mark.parametrize("place", EMULATED.values(), ids=EMULATED)
def test_a_model_answers_there_as_here(place):
    model = prepared("bert-ts17-sdpa")
    given = feeds(model, 3, 7)
    session, placement = open_on(place, fixture("bert-ts17-sdpa"))
    assert placement.whole
    (expected,) = answers(model, [given])
    for name, values in zip(expected, session.run(None, given), strict=True):
        np.testing.assert_allclose(values, expected[name], rtol=0, atol=1e-5)
