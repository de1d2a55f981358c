"""The benchmark against peers on a tiny model, and how it judges; no time or memory is held to a limit."""

import json
import subprocess
import sys
from dataclasses import replace

import onnx
import pytest
from command_line import ROOT, contents, environment, workspace
from measured import ProgramError, Usage, measure
from peer_table import Export, Row, export_table
from peer_targets import targets_json, targets_tables
from peer_trial import Settings, make
from peers import METHODS, PEERS

from onnxslim_bert.graph.sessions import open_session
from onnxslim_bert.proof.bench import Latency
from onnxslim_bert.proof.intervals import Interval


def test_the_program_measures_ours_and_a_peer(tmp_path):
    """One line each with all figures, the same as JSON, and nothing left behind."""
    model, scratch, report = workspace(tmp_path), tmp_path / "scratch", tmp_path / "figures.json"
    scratch.mkdir()
    before = contents(tmp_path)
    names = ["ort-dynamic", "ort-static-float", "onnxslim"]
    timed = "--seq 17 9 --batch 1 2 --threads 2 --rounds 3"
    options = f"--data reviews --rows 16 --max-length 20 {timed} --only {' '.join(names)}".split()
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools/bench_peers.py"), str(model), *options, "--json", str(report)],
        capture_output=True,
        text=True,
        env=environment(TMPDIR=str(scratch)),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| ") and "---" not in line]
    assert [line[0].removeprefix("| ") for line in lines[1:]] == ["fp32", *names]
    assert all("failed" not in cell for line in lines for cell in line)
    assert "## model, 2 threads" in done.stdout
    assert "Figures to reach" not in done.stdout
    rows = json.loads(report.read_text())["exports"][0]["rows"]
    assert [row["name"] for row in rows] == ["fp32", *names]
    workloads = [[(latency["batch"], latency["length"]) for latency in row["latencies"]] for row in rows]
    assert all(timed == [(1, 17), (1, 9), (2, 17), (2, 9)] for timed in workloads)
    assert all(row["usage"]["cpu_s"] > 0 and row["comparison"]["fidelity"]["rows"] > 100 for row in rows[1:])
    report.unlink()
    (scratch / ".ses").unlink(missing_ok=True)  # onnxruntime writes it when it is imported
    assert contents(tmp_path) == before


def test_a_fused_peer_runs_static_too(tmp_path):
    """It is given the types that fused operators hide."""
    for needed in ("sympy", "torch"):  # by the symbolic shape inference that it goes through
        pytest.importorskip(needed)
    model = workspace(tmp_path, "bert-ts17-eager")
    job = {"source": str(model), "output": str(tmp_path / "out.onnx"), "heads": 3, "hidden": 12, "data": "reviews"}
    job |= {"rows": 8, "seed": 0, "tokenizer": str(tmp_path), "max_length": 20}
    usage = measure("peers", ["ort-fused-static-matmul", json.dumps(job)])
    assert usage.peak_bytes > 0
    assert (tmp_path / "out.onnx").stat().st_size > 0


def test_every_form_has_every_method():
    """Raw and fused in int8, and the fused model in float."""
    fused = {name.removeprefix("ort-fused-") for name, peer in PEERS.items() if peer.fused and peer.quantize}
    assert fused == {*METHODS}
    assert {f"ort-{name}" for name in METHODS} < {*PEERS}


@pytest.mark.parametrize("name", ["ort-4-bit", "ort-4-bit-hqq"])
def test_a_peer_of_four_bits_runs(tmp_path, name):
    """Its matrices are in blocks, and the file opens."""
    for needed in ("onnx_ir", *(["torch"] if name.endswith("hqq") else [])):
        pytest.importorskip(needed)
    model = workspace(tmp_path, "bert-ts17-eager")
    job = {"source": str(model), "output": str(tmp_path / "out.onnx"), "heads": 3, "hidden": 12, "data": "reviews"}
    job |= {"rows": 8, "seed": 0, "tokenizer": str(tmp_path), "max_length": 20}
    measure("peers", [name, json.dumps(job)])
    assert "MatMulNBits" in {node.op_type for node in onnx.load(tmp_path / "out.onnx").graph.node}
    open_session(tmp_path / "out.onnx")


def test_a_candidate_that_fails_says_why(tmp_path):
    """In its line, with the program's last words."""
    settings = Settings("reviews", 8, 0, None, 20, (9,), 1, (), False)
    row = make("peer", ["no_such_module"], tmp_path / "none.onnx", settings)
    assert "No module named no_such_module" in row.failure
    assert "| peer | failed: " in export_table(Export("tiny", 1, 2, (row,)), (9,))


def test_batches_have_columns_of_their_own():
    """Figures to reach are judged at batch 1, whichever was timed first."""
    both = (replace(latency(4.0), batch=8), latency(2.0))
    row = Row("ours", latencies=both)
    table = export_table(Export("tiny", 1, 2, (row,)), (128,), (8, 1)).splitlines()
    assert "ms at 8 x 128 (speed-up) | ms at 128 (speed-up)" in table[0]
    assert "1.00 (4.00x) | 1.00 (2.00x)" in table[2]
    assert row.latency(128) is both[1]
    assert Row("ours", latencies=both[:1]).latency(128) is None


def test_a_program_that_ends_with_an_error_is_one():
    """A measured program may also end well."""
    assert measure("json.tool", ["--help"]).cpu_s > 0
    with pytest.raises(ProgramError, match="unrecognized arguments: --wrong"):
        measure("json.tool", ["--wrong"])


def latency(speedup: float) -> Latency:
    """Of 128 tokens at batch 1."""
    return Latency("", 1, 128, 1.0, 1.0, 1.0, Interval(speedup, speedup, speedup))


def test_targets_are_judged_by_what_was_measured():
    """At the limit is reached; nothing measured is no verdict; the best peer counts."""
    rows = (
        Row("fp32", 91_000_000),
        Row("ort-dynamic", latencies=(latency(2.0),)),
        Row("ort-static-all", latencies=(latency(3.0),)),
        Row("onnxslim", 24_000_000, Usage(26.0, 450_000_000), None, (latency(3.6),)),
    )
    export = Export("m", 6, 384, rows)
    found = {target["target"]: (target["value"], target["reached"]) for target in targets_json([export])}
    assert found["file, MB, ≤ 24"] == (24, True)
    assert found["its peak memory, MB, ≤ 450"] == (450, True)
    assert found["CPU of the whole command, s, ≤ 25"] == (26, False)
    assert found["speed over fp32 ≥ 3.4"] == (3.6, True)
    assert found["speed over the best peer ≥ 1.25"] == (pytest.approx(1.2), False)
    assert found["mean logit difference ≤ 0.06"] == (None, None)
    table = targets_tables([export])
    assert "| CPU of the whole command, s, ≤ 25 | 26 **not reached** |" in table
    assert "| mean logit difference ≤ 0.06 | not measured |" in table
    assert targets_tables([Export("other", 3, 12, rows)]) == ""
