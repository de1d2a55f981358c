"""The emulator that counts: its set-up, and a model whose instructions are counted where it is set up."""

import platform

import pytest
from graphs import fixture

from onnxslim_bert.calibration.working import Working
from onnxslim_bert.errors import ProviderError
from onnxslim_bert.proof.instructions import count_instructions
from onnxslim_bert.targets.arm64 import counting, emulator
from onnxslim_bert.targets.table import EMULATED

NEEDED_ON_PATH = ["apt-get", "dpkg-deb", "gcc", "make", "ninja", "pkg-config"]


@pytest.fixture
def on_debian(programs, monkeypatch):
    """The stand-ins, on a system that says it is Debian's."""
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: {"VERSION_CODENAME": "bookworm"})
    return programs


def test_it_is_set_up_whole_and_once(on_debian):
    """With a plugin beside the emulator, and steps that are told."""
    said = []
    root = counting.set_up(said.append)
    assert sorted(path.name for path in root.iterdir()) == ["counter.so", "qemu-aarch64"]
    assert [path.name for path in root.parent.iterdir()] == [root.name]
    assert len(said) == 4
    assert counting.set_up(said.append) == root
    assert len(said) == 4


@pytest.mark.parametrize("name", ["apt-get", "dpkg-deb", "tar", "python", "ninja", "pkg-config", "gcc"])
def test_a_program_that_fails_leaves_nothing(on_debian, name):
    """And is one line."""
    (on_debian / name).write_text("#!/bin/sh\necho no space >&2\nexit 1\n")
    with pytest.raises(ProviderError, match=f"^{name} failed while the emulator of arm64 was set up: no space$"):
        counting.set_up(lambda step: None)
    assert list(counting.folder().parent.iterdir()) == []


@pytest.mark.parametrize(("name", "package"), [("gcc", "gcc"), ("ninja", "ninja-build"), ("pkg-config", "pkg-config")])
def test_a_missing_program_is_told_with_its_package(on_debian, monkeypatch, name, package):
    """Before anything is fetched."""
    (on_debian / name).unlink()
    monkeypatch.setenv("PATH", str(on_debian))
    with pytest.raises(
        ProviderError, match=f"^{name} is not here: needed .*; what is missing is in Debian's {package}$"
    ) as error:
        counting.set_up(lambda step: None)
    assert all(program in str(error.value) for program in NEEDED_ON_PATH)
    assert not counting.folder().parent.exists()


def test_a_program_is_counted_in_the_emulator_with_its_own_arguments(on_debian, tmp_path):
    """The plugin's words stand before those that were there."""
    root = counting.set_up(lambda step: None)
    start = counting.counted(("qemu", "-cpu", "max", "python"), tmp_path / "log")
    assert start[0] == str(root / emulator.EMULATOR)
    assert start[-3:] == ("-cpu", "max", "python")
    assert ("-D", str(tmp_path / "log")) == start[-5:-3]


@pytest.mark.skipif(
    not (counting.folder().is_dir() and emulator.folder().is_dir()),
    reason="nothing counts: onnxslim doctor --set-up-arm64-counts",
)
def test_twice_the_rows_are_twice_the_instructions():
    """Within a tenth, and the same count each time within a hundredth; opening the session is not in it."""
    place = [EMULATED["cpu@arm64"]]
    model = fixture("bert-ts17-sdpa")
    one, three = count_instructions([model], place, Working(), batch_sizes=(1, 3), lengths=(16,)).instructions
    (again,) = count_instructions([model], place, Working(), lengths=(16,)).instructions
    assert three.per_row < 1.1 * one.per_row
    assert again.per_row == pytest.approx(one.per_row, rel=0.01)
