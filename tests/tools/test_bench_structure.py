"""The benchmark of structure on a small model, and how it judges; no time is held to a limit."""

import json
import subprocess
import sys
from operator import ge, le
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from command_line import ROOT, contents, environment, workspace
from graphs import fixture, prepared
from measured import measure
from structure_cases import CASES, Case, Cut, Limit, mixtures
from structure_peer import with_biases_inside
from structure_states import write_states
from structure_table import Row, structure_table
from structure_trial import Settings, Workbench, canonical, encoder_flops

from onnxslim_bert.errors import DataError, ModelError
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.proof.bench import Latency
from onnxslim_bert.proof.intervals import Interval

TINY = ROOT / "models/sst2-tiny/model.onnx"


def bench_structure(*options: object, folder: Path) -> subprocess.CompletedProcess[str]:
    """The program on a few rows of `reviews`, its temporary files in `folder`."""
    command = [sys.executable, str(ROOT / "tools/bench_structure.py"), *map(str, options)]
    command += ["--calib", "reviews", "--rows", "16", "--max-length", "20", "--seq", "17", "--rounds", "2"]
    return subprocess.run(command, capture_output=True, text=True, env=environment(TMPDIR=str(folder)), check=False)


def test_the_program_measures_cuts_recipes_and_embeddings(tmp_path):
    """A line each with all figures, the same as JSON, and nothing left behind."""
    model, scratch, report = workspace(tmp_path), tmp_path / "scratch", tmp_path / "figures.json"
    scratch.mkdir()
    before = contents(tmp_path)
    recipe = "canonicalize?,fuse?,first-token"
    options = (model, "--only", "heads 50 %", "--recipe", recipe, "--embeddings", "--skip-peer", "--json", report)
    done = bench_structure(*options, folder=scratch)
    assert done.returncode == 0, done.stderr
    lines = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| ") and "---" not in line]
    names = ["fp32", "heads 50 %", recipe, "fp32", "heads 50 %"]
    assert [line[0].removeprefix("| ") for line in lines if line[0] != "| "] == names
    assert all("failed" not in cell for line in lines for cell in line)
    answers, states = json.loads(report.read_text())["tables"].values()
    assert [row["name"] for row in [*answers, *states]] == names
    assert answers[1]["recipe"] == "canonicalize?,fuse?,prune-heads{keep=0.5}"
    assert answers[1]["flops"] < 0.9
    assert answers[1]["asked"][0]["limit"] == "drop ≤ 0.7"
    assert states[1]["asked"][0]["value"] == states[1]["comparison"]["fidelity"]["cosine"] < 1
    assert all(row["latency"]["length"] == 17 for row in [*answers, *states])
    report.unlink()
    (scratch / ".ses").unlink(missing_ok=True)  # onnxruntime writes it when it is imported
    assert contents(tmp_path) == before


@pytest.fixture(scope="module")
def workbench(tmp_path_factory):
    """Of the small model, on 16 rows."""
    settings = Settings("reviews", 16, 0, TINY.parent, 20, 17, 1)
    return Workbench(TINY, tmp_path_factory.mktemp("models"), settings)


def test_flops_are_removed_by_a_mixture_chosen_on_spare_rows(workbench):
    """At least the share that was asked for goes, and only little more."""
    row = workbench.ours(Case("a quarter", (), flops=0.25))
    assert not row.failure
    assert 0.70 < row.flops <= 0.75
    assert row.cut in mixtures(workbench.encoder, workbench.attention, workbench.feed_forward, 0.25)


def test_mixtures_leave_neurons():
    """A cut that would take nearly all of them is none."""
    encoder, (attention, feed_forward) = canonical(TINY).encoder, encoder_flops(TINY, 17)
    for removed in (0.1, 0.4, 0.6):
        for cut in mixtures(encoder, attention, feed_forward, removed):
            gone = cut.heads * attention + cut.neurons * feed_forward
            assert gone >= removed * (attention + feed_forward)
            assert 0 <= cut.neurons <= 0.75


def test_what_cannot_be_made_says_why(workbench):
    """In its line: ours, a recipe, and the peer's with its program's last words."""
    rows = [workbench.ours(Case("none", (), Cut(layers=9))), workbench.recipe("prune-hats")]
    assert "no pass 'prune-hats'" in rows[1].failure
    assert all(row.failure and row.file is None for row in rows)
    assert structure_table(rows, 17).count("| failed: ") == 2


def test_rows_to_evaluate_on_are_needed(tmp_path):
    """Half of a file is held back, of a file with few texts nothing."""
    model = workspace(tmp_path)
    few = tmp_path / "few.tsv"
    few.write_text("".join((tmp_path / "calib.tsv").read_text().splitlines(keepends=True)[:9]))
    with pytest.raises(DataError, match="has no evaluation rows of its own"):
        Workbench(model, tmp_path, Settings(str(few), 8, 0, tmp_path, 20, 9, 1))


@pytest.mark.parametrize("name", ["bert-ts17-sdpa", "roberta-dynamo20-sdpa"])
def test_a_classifier_is_cut_to_its_states(name, tmp_path):
    """Its head gone, it gives a vector a token."""
    write_states(fixture(name), tmp_path / "states.onnx")
    session = ort.InferenceSession(str(tmp_path / "states.onnx"), providers=["CPUExecutionProvider"])
    feeds = {tensor.name: np.ones((2, 5), np.int64) for tensor in session.get_inputs()}
    (states,) = session.run(None, feeds)
    assert states.shape == (2, 5, canonical(fixture(name)).encoder.hidden)
    with pytest.raises(ModelError, match="needed a classifier on the first token"):
        write_states(tmp_path / "states.onnx", tmp_path / "again.onnx")


def test_the_form_for_the_peer_computes_the_same(tmp_path):
    """Biases inside attention are biases before it."""
    fused = prepared("bert-ts17-eager", Canonicalize(), Fuse())
    before, after = fused.proto(), with_biases_inside(fused.clone())
    assert sum(node.op_type == "Add" for node in after.graph.node) < sum(
        node.op_type == "Add" for node in before.graph.node
    )
    found = []
    for proto in (before, after):
        session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
        feeds = {tensor.name: np.ones((2, 5), np.int64) for tensor in session.get_inputs()}
        found.append(session.run(None, feeds)[0])
    np.testing.assert_allclose(found[1], found[0], atol=1e-5)


def test_the_peer_prunes_and_says_where_it_does_nothing(workbench):
    """Heads go; layers do not, because norms follow the sums."""
    pytest.importorskip("onnxsim")
    heads = workbench.theirs(Case("heads", ()), Cut(heads=0.5))
    assert not heads.failure
    assert heads.flops < 0.9
    layer = workbench.theirs(Case("layer", ()), Cut(layers=1))
    assert layer.failure.startswith("does nothing")


def test_a_missing_peer_is_said(workbench, monkeypatch):
    """In the line of what it was asked for."""
    monkeypatch.setattr("structure_trial.measure", lambda module, _: measure(f"no_{module}", []))
    assert "No module named no_structure_peer" in workbench.theirs(Case("heads", ()), Cut(heads=0.5)).failure


def test_limits_are_judged_by_what_was_measured():
    """At the limit is met; nothing measured is no verdict."""
    speed, size = Limit("speed-up", ge, 6), Limit("MB", le, 12)
    row = Row("m", (speed, size, Limit("drop", le, 1)), nbytes=12_000_001)
    row = Row("m", row.asked, nbytes=row.nbytes, latency=Latency("m", 1, 17, 1.0, 1.0, 1.0, Interval(6, 6, 6)))
    assert [verdict["met"] for verdict in row.verdicts()] == [True, False, None]
    assert "speed-up ≥ 6 met, MB ≤ 12 **missed**, drop ≤ 1 not measured" in structure_table([row], 17)


def test_every_case_is_one_cut_or_a_share_of_flops():
    """And asks for something."""
    for case in CASES:
        assert (case.cut is None) == bool(case.flops)
        assert case.asked
