"""Interleaving, statistics and footprints; no test depends on how fast anything is."""

import json
import subprocess
import sys

import numpy as np
import pytest
from answering_models import classifier, reading, texts, tokenizer
from click.testing import CliRunner
from graphs import fixture, prepared, takes_no_rows

from onnxslim_bert.calibration.working import Working
from onnxslim_bert.cli.bench import bench as command
from onnxslim_bert.errors import DataError, ModelError
from onnxslim_bert.graph.sessions import open_session
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.early_exit import EarlyExit
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.proof.bench import Rounds, bench, interleave
from onnxslim_bert.proof.footprint import footprint
from onnxslim_bert.proof.intervals import ratio_of_means
from onnxslim_bert.proof.time_against import time_against
from onnxslim_bert.proof.workload import Workload, same_feeds
from onnxslim_bert.targets.table import CPU

TABLE = np.ones((100, 2), np.float32)


class Stub:
    """A model that takes a known time, and notes what it was fed."""

    def __init__(self, name, seconds, clock, log):
        self.name, self.seconds, self.clock, self.log = name, seconds, clock, log

    def run(self, names, feed):
        self.clock[0] += self.seconds
        self.log.append((self.name, int(feed["row"])))


def stubs(*seconds):
    """Models, the clock that they move, and the log that they share."""
    clock, log = [0.0], []
    return [Stub(index, each, clock, log) for index, each in enumerate(seconds)], clock, log


def test_times_are_milliseconds_by_round_and_model():
    """Without the warm-up."""
    models, clock, log = stubs(0.002, 0.001)
    feeds = [[{"row": np.array(0)}]] * 2
    times = interleave(models, feeds, rounds=5, warmup=3, seed=0, clock=lambda: clock[0])
    np.testing.assert_allclose(times, [[2, 1]] * 5)
    assert len(log) == 2 * (5 + 3)


@pytest.mark.parametrize(("each", "timed"), [(0.001, 30), (0.1, 15), (5.0, 10)])
def test_slow_models_are_timed_in_fewer_rounds(each, timed):
    """But in ten at least."""
    models, clock, _ = stubs(each, each)
    how = {"rounds": 30, "warmup": 2, "seed": 0, "seconds": 2.95}
    assert len(interleave(models, [[{"row": np.array(0)}]] * 2, **how, clock=lambda: clock[0])) == timed


def test_every_round_runs_every_model_once_on_the_same_row():
    """In an order that changes from round to round."""
    models, clock, log = stubs(1, 1, 1)
    feeds = [[{"row": np.array(row)} for row in range(4)]] * 3
    interleave(models, feeds, rounds=20, warmup=0, seed=0, clock=lambda: clock[0])
    rounds = [log[start : start + 3] for start in range(0, 60, 3)]
    assert all(sorted(name for name, _ in turn) == [0, 1, 2] for turn in rounds)
    assert [{row for _, row in turn} for turn in rounds] == [{number % 4} for number in range(20)]
    assert len({tuple(name for name, _ in turn) for turn in rounds}) > 1


def sessions(*paths):
    """Pairs of path and session."""
    return [(path, open_session(path)) for path in paths]


def test_random_feeds_fill_batch_and_length_with_safe_ids(tmp_path):
    """Full masks, the same ids for every model, padded to a fixed length."""
    free = classifier(tmp_path / "free.onnx", TABLE)
    fixed = classifier(tmp_path / "fixed.onnx", TABLE, shape=("batch", 9))
    short, long = (feeds[0] for feeds in same_feeds(sessions(free, fixed), Workload(3, 5), None, Working(1), 7))
    assert short["input_ids"].shape == (3, 5)
    assert long["input_ids"].shape == (3, 9)
    assert (short["input_ids"] == long["input_ids"][:, :5]).all()
    assert short["input_ids"].max() < 100
    assert short["attention_mask"].all()
    assert long["attention_mask"].sum() == 15


def test_texts_keep_their_lengths_and_come_in_one_order(tmp_path):
    """As many batches as rounds, drawn again when the rows run out."""
    model = classifier(tmp_path / "m.onnx", TABLE)
    rows = texts(["w0", "w1 w2", "w3 w4 w5"])
    feeds = same_feeds(sessions(model, model), Workload(2, None), rows, Working(8, tokenizer=tokenizer(tmp_path)), 6)
    assert [len(each) for each in feeds] == [6, 6]
    tokens = [int(feed["attention_mask"].sum()) for feed in feeds[0]]
    assert sum(tokens) == 4 * (1 + 2 + 3)
    assert tokens == [int(feed["attention_mask"].sum()) for feed in feeds[1]]


@pytest.mark.parametrize(
    ("shape", "workload", "message"),
    [
        ((1, "length"), Workload(4, 5), r"m\.onnx runs batches of 1 only: it cannot be timed at batch 4"),
        (("batch", 6), Workload(1, 7), r"m\.onnx runs 6 tokens at most: it cannot be timed at length 7"),
    ],
)
def test_a_workload_that_a_fixed_shape_cannot_hold_is_refused(tmp_path, shape, workload, message):
    """Before anything is timed."""
    model = classifier(tmp_path / "m.onnx", TABLE, shape=shape)
    with pytest.raises(ModelError, match=message):
        same_feeds(sessions(model), workload, None, Working(8), 1)


def test_a_bench_holds_every_model_on_every_workload(tmp_path):
    """Positive times, the first model as the measure of the others, the conditions beside them."""
    models = [classifier(tmp_path / name, TABLE) for name in ("a.onnx", "b.onnx")]
    result = bench(models, batch_sizes=[1, 3], lengths=[4, 7], rounds=Rounds(6, 1), footprints=False)
    assert [(row.model, row.batch, row.length) for row in result.latencies] == [
        (str(model), batch, length) for batch in (1, 3) for length in (4, 7) for model in models
    ]
    for row in result.latencies:
        assert 0 < row.median_ms <= row.p90_ms <= row.p99_ms
        assert row.speedup.low <= row.speedup.value <= row.speedup.high
    assert result.latencies[0].speedup.value == 1
    assert (result.rounds, result.threads, result.spinning) == (6, 1, False)
    assert result.footprints == {}
    assert result.host.onnxruntime


def test_nothing_to_time_is_refused(tmp_path):
    """No model, or no rounds."""
    with pytest.raises(DataError, match="needed at least one model"):
        bench([])
    with pytest.raises(DataError, match="of 1 or more"):
        bench([tmp_path / "m.onnx"], rounds=Rounds(0))


def test_peak_memory_is_the_model_s_own_not_the_parent_s(tmp_path):
    """A model of 16 MB takes them, and 200 MB held here do not show."""
    held = np.ones(25_000_000)
    large = classifier(tmp_path / "large.onnx", np.ones((100, 40_000), np.float32))
    feeds = {"input_ids": np.ones((1, 2), np.int64), "attention_mask": np.ones((1, 2), np.int64)}
    taken = footprint(large, feeds)
    assert 16e6 < taken.peak_bytes - taken.idle_bytes < taken.peak_bytes < held.nbytes
    assert taken.load_ms > 0
    assert taken.nbytes > 16e6


def test_the_measuring_process_imports_the_runtime_alone():
    """Nothing of ours that is heavy."""
    heavy = ("onnx", "tokenizers", "click")
    code = f"import onnxslim_bert.proof.bench_child, sys; print([m for m in {heavy} if m in sys.modules])"
    path = ":".join(entry for entry in sys.path if entry)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": path}, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_model_that_cannot_load_in_its_process_is_an_error(tmp_path):
    """With the runtime's reason."""
    (tmp_path / "bytes.onnx").write_bytes(bytes(range(256)))
    with pytest.raises(ModelError, match=r"bytes\.onnx: the process that measures memory ended with 1"):
        footprint(tmp_path / "bytes.onnx", {})


def test_the_command_prints_one_json_document(tmp_path):
    """Times and footprints of random ids."""
    models = [str(classifier(tmp_path / name, TABLE)) for name in ("a.onnx", "b.onnx")]
    result = CliRunner().invoke(command, [*models, "--batch", "1,2", "--seq", "5", "--rounds", "3", "--json"])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert [row["batch"] for row in document["latencies"]] == [1, 1, 2, 2]
    assert set(document["footprints"]) == set(models)


def test_the_command_prints_tables_for_real_texts(tmp_path):
    """With the conditions below them."""
    tokenizer(tmp_path)
    (tmp_path / "rows.txt").write_text("w1 w2\nw3\n")
    model = classifier(tmp_path / "a.onnx", TABLE)
    result = CliRunner().invoke(command, [str(model), "--data", str(tmp_path / "rows.txt"), "--rounds", "3"])
    assert result.exit_code == 0, result.output
    assert "text" in result.stdout
    assert "3 interleaved rounds, 1 thread, spinning off" in result.stdout


def test_on_real_texts_the_means_are_compared(tmp_path):
    """Their times differ, and a median would hide the long ones."""
    tokenizer(tmp_path)
    (tmp_path / "rows.txt").write_text("w1 w2\nw3\n")
    models = [str(classifier(tmp_path / name, TABLE)) for name in ("a.onnx", "b.onnx")]
    given = ["--data", str(tmp_path / "rows.txt"), "--rounds", "3", "--json"]
    base, other = json.loads(CliRunner().invoke(command, [*models, *given]).stdout)["latencies"]
    assert other["speedup"]["value"] == pytest.approx(base["mean_ms"] / other["mean_ms"])


def test_the_ratio_of_means_weighs_each_round_by_its_time():
    """Rounds of 1 and 9 ms that become 1 and 3 ms: 2.5, not the middle of 1 and 3."""
    ratio = ratio_of_means(np.array([1.0, 9.0] * 50), np.array([1.0, 3.0] * 50))
    assert ratio.value == 2.5
    assert 2 < ratio.low < 2.5 < ratio.high < 3


@takes_no_rows
def test_a_model_that_texts_leave_early_is_timed_on_texts(tmp_path):
    """Not on random ids; and not at all by `time_against` without rows."""
    base = fixture("bert-ts17-eager")
    path = tmp_path / "early.onnx"
    prepared("bert-ts17-eager", Canonicalize(), Fuse(), EarlyExit(after=(0,), certainty=0.1)).save(path)
    with pytest.raises(DataError, match=r"early\.onnx lets texts leave early, .* time it on texts, with --data"):
        bench([path], rounds=Rounds(1))
    assert time_against(base, path, CPU, Working()) == ()
    slow, fast = time_against(base, path, CPU, reading(tmp_path, 16), (None, texts(["w1 w2", "w3"])))
    assert (fast.length, fast.speedup.value) == (None, pytest.approx(slow.mean_ms / fast.mean_ms))


@pytest.mark.parametrize("options", [["--batch", "0"], ["--seq", "8,x"], ["--data", "sst2", "--seq", "8"]])
def test_bad_options_are_usage_errors(tmp_path, options):
    """Exit code 2."""
    model = classifier(tmp_path / "a.onnx", TABLE)
    assert CliRunner().invoke(command, [str(model), *options]).exit_code == 2
