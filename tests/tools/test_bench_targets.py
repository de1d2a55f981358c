"""The benchmark of targets on a small model; QNN is executed where it is installed."""

import subprocess
import sys

import pytest
from bench_targets import CASES, Row, targets_table
from command_line import ROOT, contents, environment, workspace

from onnxslim_bert.recipes.lowering import LOWERINGS, lowering
from onnxslim_bert.recipes.recipe import Recipe
from onnxslim_bert.targets.placement import Placement
from onnxslim_bert.targets.table import TARGETS


def bench_targets(*options: object, folder: object) -> subprocess.CompletedProcess[str]:
    """The program on a few rows of `reviews`, its temporary files in `folder`."""
    command = [sys.executable, str(ROOT / "tools/bench_targets.py"), *map(str, options)]
    command += ["--calib", "reviews", "--rows", "6", "--seq", "8", "--evaluate", "3"]
    return subprocess.run(command, capture_output=True, text=True, env=environment(TMPDIR=str(folder)), check=False)


def test_a_line_says_where_a_model_runs_and_what_it_answers(tmp_path):
    """All nodes in one partition, three rows compared, four context binaries; nothing is left behind."""
    pytest.importorskip("onnxruntime_qnn")
    model, scratch = workspace(tmp_path), tmp_path / "scratch"
    scratch.mkdir()
    before = contents(tmp_path)
    done = bench_targets(model, "--only", "qnn", folder=scratch)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("| model | qnn |")]
    cells = [cell.strip() for cell in line.strip("| ").split("|")]
    taken, total = cells[2].split("/")
    assert (taken == total, cells[3], cells[4]) == (True, "1", "3")
    assert [chip.split(":")[0] for chip in cells[-1].split(", ")] == ["43", "57", "69", "87"]
    (scratch / ".ses").unlink(missing_ok=True)  # onnxruntime writes it when it is imported
    assert contents(tmp_path) == before


def test_what_fails_says_why_and_the_others_go_on():
    """In its line."""
    rows = [Row("m", "qnn", failure="qnn is not installed | yet"), Row("m", "qnn u8", Placement("QNN", 1, 1, 1))]
    head, _, *lines = targets_table(rows).splitlines()
    assert lines[0].startswith("| m | qnn | failed: qnn is not installed / yet |")
    assert {line.count("|") for line in (head, *lines)} == {head.count("|")}


def test_every_case_is_a_lowering_of_a_target():
    """With passes that exist."""
    for case in CASES:
        assert case.target in TARGETS
        lowering(case.target, case.mode, 8 if LOWERINGS[case.target].is_fixed else None)
        Recipe.parse(case.then or "fuse")
    assert len({case.name for case in CASES}) == len(CASES)
