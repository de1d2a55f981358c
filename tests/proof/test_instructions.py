"""Instructions are counted by run, divided by rows and set against the first model's; nothing else is asked for.

The emulator is a stand-in: this Python runs the model, and what it says to have executed are the bytes of its file. The
real one is tried in tests/targets/arm64/test_counting.py.
"""

import json
import sys

import pytest
from command_line import run
from graphs import fixture

from onnxslim_bert.calibration.working import Working
from onnxslim_bert.errors import ProviderError
from onnxslim_bert.proof.instructions import count_instructions
from onnxslim_bert.targets.arm64 import counting, emulator
from onnxslim_bert.targets.table import CPU, EMULATED

STAND_IN = """#!/bin/sh
log=$6; while [ $# -gt 4 ]; do shift; done
echo 7 > "$log"; echo $(($(stat -c %s "$3") + 7)) >> "$log"
exec "{python}" "$@"
"""
SMALL, LARGE = fixture("bert-ts17-sdpa"), fixture("bert-ts17-eager")


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """A cache with an emulator that counts."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    emulator.folder().mkdir(parents=True)
    counting.folder().mkdir()
    program = counting.folder() / emulator.EMULATOR
    program.write_text(STAND_IN.format(python=sys.executable))
    program.chmod(0o755)


def test_counts_are_of_a_row_and_relative_to_the_first(stand_in):
    """On every provider, for every workload."""
    counted = count_instructions([SMALL, LARGE], list(EMULATED.values()), Working(), batch_sizes=(1, 3), lengths=(5, 9))
    sizes = {str(path): path.stat().st_size for path in (SMALL, LARGE)}
    assert [(row.target, row.batch, row.length, row.model) for row in counted.instructions] == [
        (target, batch, length, model)
        for target in EMULATED
        for batch in (1, 3)
        for length in (5, 9)
        for model in sizes
    ]
    for row in counted.instructions:
        assert row.per_row == sizes[row.model] / row.batch
        assert row.relative == sizes[row.model] / sizes[str(SMALL)]


def test_the_last_two_places_of_a_log_are_a_run():
    """Those before it are of other runs."""
    assert counting.last_run("10\n20\n1000\n1234\n") == 234


def test_bench_prints_counts_and_what_they_are(stand_in):
    outcome = run("bench", SMALL, LARGE, "--ep", "cpu@arm64", "--seq", "8")
    assert outcome.code == 0, outcome.err
    assert f"{LARGE.stat().st_size / SMALL.stat().st_size:.3f}" in outcome.out
    assert (
        f"fewest on cpu@arm64, batch 1, 8 tokens: {min(SMALL, LARGE, key=lambda path: path.stat().st_size).name}"
        in outcome.out
    )
    assert "not time" in outcome.out
    assert " ms" not in outcome.out
    document = json.loads(run("bench", SMALL, "--ep", "cpu@arm64", "--seq", "8", "--json").out)
    assert document["instructions"][0]["per_row"] == SMALL.stat().st_size


@pytest.mark.parametrize("option", ["--rounds", "--threads", "--spinning", "--data"])
def test_what_times_alone_would_use_is_refused(option):
    value = {"--spinning": [], "--data": ["sst2"]}.get(option, ["2"])
    outcome = run("bench", SMALL, "--ep", "cpu@arm64", option, *value)
    assert outcome.code == 2
    assert f"{option} does nothing where instructions are counted" in outcome.err


def test_a_cpu_that_is_no_emulator_is_not_counted():
    with pytest.raises(ProviderError, match="cpu is not one of cpu@arm64, cpu@arm64-v8, where instructions"):
        count_instructions([SMALL], [EMULATED["cpu@arm64"], CPU], Working())


def test_what_is_not_set_up_says_what_sets_it_up(stand_in):
    (counting.folder() / emulator.EMULATOR).unlink()
    counting.folder().rmdir()
    outcome = run("bench", SMALL, "--ep", "cpu@arm64")
    assert outcome.code == 5
    assert "`onnxslim doctor --set-up-arm64-counts`" in outcome.err
    assert outcome.err.count("\n") == 1
