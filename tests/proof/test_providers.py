"""Validation and timing on several providers: every one its evidence, its placement and its verdicts."""

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from answering_models import WORDS, classifier, reading, texts
from click.testing import CliRunner, Result

from onnxslim_bert.cli.bench import bench as bench_command
from onnxslim_bert.cli.validate import validate as validate_command
from onnxslim_bert.errors import AccuracyGateError, ProviderError
from onnxslim_bert.proof.bench import Rounds, bench
from onnxslim_bert.proof.comparison import compare
from onnxslim_bert.proof.evaluation import evaluate
from onnxslim_bert.proof.gates import Budgets, enforce
from onnxslim_bert.proof.junit import junit
from onnxslim_bert.proof.validate import validate_all
from onnxslim_bert.proof.verdicts import judge
from onnxslim_bert.targets.places import Places
from onnxslim_bert.targets.session import Placed, open_on
from onnxslim_bert.targets.setup import CPU_PROVIDER, Setup
from onnxslim_bert.targets.table import CPU, TARGETS
from onnxslim_bert.targets.target import Target

TABLE = np.array([[0, 0], [3, 0], [2, 0], [1, 0], [0, 1.1], [0, 2.2], [0, 3.3], [0, 4.4]], np.float32)
ROWS = [f"w{first} w{second}" for first in range(WORDS) for second in range(WORDS)]
RIGHT = [int(sum(TABLE[int(word[1:]) + 1] @ [-1, 1] for word in row.split()) > 0) for row in ROWS]
OTHER = Target("other", CPU_PROVIDER, lambda options, threads: Setup(CPU_PROVIDER), ("float32",), "here")
EMULATED = Target("emulated", CPU_PROVIDER, OTHER.setup, ("float32",), "here", emulated=True)


@dataclass(frozen=True)
class Damaging(Places):
    """Another provider loses what this model does not: it runs the one at `instead`."""

    instead: Path = Path()

    def open(self, target: Target, path: Path, *, threads: int = 1, spinning: bool = False) -> Placed:
        return open_on(target, path if target is CPU else self.instead)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """The model that answers every row right, its tokenizer beside it."""
    reading(tmp_path)
    return classifier(tmp_path / "base.onnx", TABLE)


def test_the_same_file_can_pass_on_one_provider_and_miss_on_another(base):
    """Each verdict names its provider, and so does the error."""
    places = Damaging((CPU, OTHER), instead=classifier(base.parent / "swapped.onnx", TABLE[:, ::-1].copy()))
    data, reader = texts(ROWS, RIGHT), reading(base.parent)
    good, bad = validate_all(base, [base], data, reader, Budgets(min_agreement=90), places=places)
    assert [(result.target, result.placement.whole) for result in (good, bad)] == [("cpu", True), ("other", True)]
    assert [(v.where, v.outcome) for v in good.verdicts] == [("cpu", "met"), ("cpu", "met")]
    assert [(v.where, v.outcome) for v in bad.verdicts] == [("other", "met"), ("other", "missed")]
    with pytest.raises(AccuracyGateError, match="min-agreement on other missed: 0 %"):
        enforce([*good.verdicts, *bad.verdicts])
    assert b'name="min-agreement on other"' in junit("suite", bad.verdicts, lambda verdict: verdict.fails(strict=False))


def test_several_candidates_are_named_beside_the_provider(base):
    """In the order asked for."""
    second = classifier(base.parent / "second.onnx", TABLE)
    results = validate_all(base, [base, second], texts(ROWS, RIGHT), reading(base.parent), places=Places((CPU, OTHER)))
    assert [result.verdicts[0].where for result in results] == [
        "cpu, base.onnx",
        "other, base.onnx",
        "cpu, second.onnx",
        "other, second.onnx",
    ]


def test_times_are_of_the_base_on_the_cpu_and_of_what_is_no_emulator(base):
    """In the same rounds, with memory; a budget for an emulator's speed-up stays open."""
    places = Places((CPU, OTHER, EMULATED))
    data, reader = texts(ROWS, RIGHT), reading(base.parent)
    one, two, three = validate_all(base, [base], data, reader, Budgets(min_speedup=1e-6), places=places, latency=True)
    assert one.bench
    assert two.bench
    assert three.bench is None
    assert [row.target for row in two.bench.latencies] == ["cpu", "other"]
    assert one.bench.latencies[0] == two.bench.latencies[0]
    assert two.bench.footprints[f"{base} on other"].peak_bytes > 0
    assert [result.verdicts[-1].outcome for result in (one, two, three)] == ["met", "met", "inconclusive"]
    assert three.verdicts[-1].note == "an emulator ran it, whose times say nothing of a device"


def test_a_missing_provider_is_refused_before_the_base_runs(base):
    """Even if the base were no model at all."""
    if not TARGETS["nnapi"].absent():
        pytest.skip("it runs here")
    told: list[str] = []
    working = replace(reading(base.parent), progress=lambda stage, done, total: told.append(stage))
    with pytest.raises(ProviderError, match="nnapi runs on Android"):
        validate_all(base, [base], texts(ROWS), working, places=Places((CPU, TARGETS["nnapi"])))
    assert told == []


def test_sizes_for_open_shapes_hold_for_the_base_too(base):
    """Both read as many tokens, so that what is cut off is no difference between them."""
    results = validate_all(
        base, [base], texts(["w0 w1 w2 w3 w4 w5"]), reading(base.parent), places=Places((CPU,), shape=(1, 4))
    )
    assert results[0].max_length == 4


def test_an_unmeasured_speedup_is_no_verdict_unless_an_emulator_ran(base):
    """Judged from what there is."""
    outputs = evaluate(base, texts(ROWS, RIGHT), reading(base.parent))
    seen = compare(outputs, outputs, texts(ROWS, RIGHT))
    assert [v.gate for v in judge(seen, Budgets(min_speedup=2))] == ["finite"]
    assert [v.gate for v in judge(seen, Budgets(min_speedup=2), emulated=True)] == ["finite", "min-speedup"]


def test_every_model_is_timed_on_every_provider(base):
    """The first on the first is the measure of all."""
    large = np.ones((100, 2), np.float32)
    first, second = (classifier(base.parent / name, large) for name in ("first.onnx", "second.onnx"))
    result = bench([first, second], lengths=[5], rounds=Rounds(3, 1), places=Places((CPU, OTHER)))
    assert [(Path(row.model).name, row.target) for row in result.latencies] == [
        ("first.onnx", "cpu"),
        ("first.onnx", "other"),
        ("second.onnx", "cpu"),
        ("second.onnx", "other"),
    ]
    assert result.latencies[0].speedup.value == 1
    names = [str(first), f"{first} on other", str(second), f"{second} on other"]
    assert list(result.footprints) == list(result.placements) == names


def test_an_emulator_is_not_timed(base):
    """The error says what to use instead."""
    with pytest.raises(ProviderError, match=r"emulated runs on an emulator here, .* `onnxslim validate --ep emulated`"):
        bench([base], places=Places((CPU, EMULATED)))


def invoke(base: Path, *options: str) -> Result:
    """`validate` of the base with itself on the labelled rows."""
    data = base.parent / "rows.tsv"
    data.write_text("sentence\tlabel\n" + "".join(f"{row}\t{label}\n" for row, label in zip(ROWS, RIGHT, strict=True)))
    return CliRunner().invoke(validate_command, [str(base), str(base), "--data", str(data), *options])


@pytest.fixture
def in_table(monkeypatch):
    """The targets of this file, in the table."""
    for target in (OTHER, EMULATED):
        monkeypatch.setitem(TARGETS, target.name, target)


@pytest.mark.usefixtures("in_table")
def test_validate_prints_a_row_for_every_provider(base):
    """With its share of the nodes; an emulator's missing latency is explained."""
    result = invoke(base, "--ep", "cpu,emulated", "--max-drop", "10")
    assert result.exit_code == 0, result.output
    assert result.stdout.count("5/5 (100.0%)") == 2
    assert "max-drop on emulated met" in result.stdout
    assert "emulated: no latency, since an emulator ran it" in result.stdout


@pytest.mark.usefixtures("in_table")
def test_validate_gives_one_document(base):
    """A list of validations when there are several, the validation itself when there is one."""
    both = json.loads(invoke(base, "--ep", "cpu,other", "--json").stdout)
    assert [found["target"] for found in both["validations"]] == ["cpu", "other"]
    one = json.loads(invoke(base, "--json").stdout)
    assert one["target"] == "cpu"
    assert one["comparison"] == both["validations"][0]["comparison"]
    assert one["verdicts"][0]["where"] == ""


@pytest.mark.usefixtures("in_table")
def test_bench_prints_providers(base):
    """Beside the models."""
    model = classifier(base.parent / "large.onnx", np.ones((100, 2), np.float32))
    options = [str(model), "--ep", "cpu,other", "--rounds", "3", "--seq", "5"]
    result = CliRunner().invoke(bench_command, options)
    assert result.exit_code == 0, result.output
    assert "other" in result.stdout
    assert "5/5" in result.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ep", "qn"], "did you mean 'qnn'?"),
        (["--ep-option", "qnn.soc_model=69"], "given for qnn, which --ep does not name"),
        (["--ep", "qnn", "--ep-option", "soc_model=69"], "is not EP.NAME=VALUE"),
        (["--seq", "8"], "--seq does nothing on providers that take open shapes"),
    ],
)
def test_bad_provider_options_are_usage_errors(base, options, message):
    """Exit code 2."""
    result = invoke(base, *options)
    assert result.exit_code == 2
    assert message in result.output


def test_options_reach_the_provider(base):
    """Where a bad one is refused with exit code 5."""
    result = invoke(base, "--ep", "cpu", "--ep-option", "cpu.fast=1")
    assert isinstance(result.exception, ProviderError)
    assert "cpu has no option 'fast'" in str(result.exception)


def test_qnn_answers_as_the_cpu_does(base):
    """Its emulator, with fixed shapes, through the command."""
    pytest.importorskip("onnxruntime_qnn")
    result = invoke(base, "--ep", "qnn", "--seq", "4", "--rows", "9", "--allow-fallback", "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["comparison"]["fidelity"]["agreement"]["value"] == 100
    assert document["placement"]["provider"] == "QNNExecutionProvider"
    assert "onnxruntime_qnn" in sys.modules
