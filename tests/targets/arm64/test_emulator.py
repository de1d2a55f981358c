"""The emulator of 64-bit ARM: its set-up, and a model that runs in it where it is set up."""

import numpy as np
import pytest
from command_line import run, workspace
from graphs import feeds, fixture, prepared
from oracles import answers

from onnxslim_bert.errors import ProviderError
from onnxslim_bert.targets.arm64 import emulator
from onnxslim_bert.targets.session import open_on
from onnxslim_bert.targets.table import EMULATED


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


@pytest.mark.parametrize("name", ["apt-get", "dpkg-deb", "python"])
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
