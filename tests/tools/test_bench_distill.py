"""The benchmark of distillation on a small model; no figure is held to a limit."""

import subprocess
import sys

import pytest
from bench_distill import CASES
from command_line import ROOT, environment

from onnxslim_bert.recipes.known import read_recipe

TINY = ROOT / "models/sst2-tiny/model.onnx"


def bench_distill(*options: object) -> subprocess.CompletedProcess[str]:
    """The program on the reference model and a few rows of `reviews`."""
    command = [sys.executable, ROOT / "tools/bench_distill.py", TINY, "--calib", "reviews", "--rows", "64", *options]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment(), check=False)


def test_a_recipe_is_made_compared_and_timed():
    pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'onnxslim-bert[distill]'")
    recipe = "canonicalize?,fuse?,prune-ffn{keep=0.1,refit=false},distill{steps=20,texts=200},quantize-static"
    done = bench_distill("--recipe", recipe, "--rounds", "2", "--seq", "17")
    assert done.returncode == 0, done.stderr
    table = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")]
    assert len(table) == 2
    assert table[1][0] == f"| `{recipe}`"
    assert [cell[-1] for cell in table[1][2:4]] == ["x", "B"]
    assert "held-back error" in done.stderr


def test_what_is_not_timed_says_so():
    done = bench_distill("--recipe", "canonicalize?,quantize-static", "--no-timing")
    assert done.returncode == 0, done.stderr
    assert "not timed" in done.stdout


def test_what_cannot_be_made_is_one_line():
    done = bench_distill("--recipe", "@exakt")
    assert (done.returncode, done.stdout.count("|")) == (1, 0)
    assert done.stderr.splitlines()[-1].startswith("bench_distill: no recipe '@exakt'")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_recipes_of_the_cases_train_once(case):
    assert [step.action.name for step in read_recipe(case.recipe).steps].count("distill") == 1
