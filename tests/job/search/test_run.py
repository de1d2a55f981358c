"""A search over a file: what it writes, what it leaves, and what it says."""

import hashlib
import importlib.util
import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from command_line import WORDS, contents, environment, workspace, write_tokenizer
from graphs import prepared
from weighing_clock import fake_bench

from onnxslim_bert.calibration.working import Working
from onnxslim_bert.errors import (
    AccuracyGateError,
    DataError,
    LatencyGateError,
    OutputError,
    PassError,
    ProviderError,
    SizeGateError,
)
from onnxslim_bert.graph.download import download_bytes
from onnxslim_bert.job.data import Sources
from onnxslim_bert.job.deployment import Deployment
from onnxslim_bert.job.job import Job
from onnxslim_bert.job.report import Report
from onnxslim_bert.job.seal import Gate
from onnxslim_bert.job.search import costs, search, tables
from onnxslim_bert.job.search.run import run_search
from onnxslim_bert.job.search.search import Search
from onnxslim_bert.job.search.search_folder import SearchFolder
from onnxslim_bert.job.search.targets import Targets
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.float16 import Float16
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.passes.quantize_static import QuantizeStatic
from onnxslim_bert.recipes.lowering import LOWERINGS, lowered
from onnxslim_bert.recipes.provenance import KEY
from onnxslim_bert.recipes.recipe import Recipe
from onnxslim_bert.targets.table import TARGETS

pytestmark = pytest.mark.full_range  # tables are measured by a fixture of the module, by any test, or by a child
needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None,
    reason="PyTorch is not installed: pip install 'onnxslim-bert[distill]'",
)
TOO_FAST = Targets(speedup=1000.0)
WHOLE = "canonicalize?,fuse?,prune{heads=3/3/3,neurons=20/20/20}?,first-token?,split-outliers?"


def sources(folder: Path) -> Sources:
    return Sources(calibration=str(folder / "calib.tsv"), evaluation=str(folder / "eval.tsv"))


def searched(folder: Path, targets: Targets, **options) -> Report:
    """Search for small.onnx in `folder`."""
    job = Job(folder / "model.onnx", folder / "small.onnx", data=sources(folder), timing=False)
    return run_search(replace(job, **options), targets)


def few_steps(patch: pytest.MonkeyPatch) -> None:
    """One or two of each kind are enough to choose from."""
    patch.setattr(tables, "LAYERS", (1,))
    patch.setattr(tables, "RANKS", (2, 4))
    patch.setattr(tables, "BITS", (4,))
    patch.setattr(tables, "CODED", (2,))
    patch.setattr(tables, "VOCABULARIES", (2,))
    patch.setattr(tables, "TOKENS", (0.5,))
    patch.setattr(search, "DEPTHS", (0.0, 0.6, 1.0))


@pytest.fixture(autouse=True)
def _few_steps(monkeypatch):
    few_steps(monkeypatch)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A folder in which a search has measured everything, and reached nothing."""
    folder = tmp_path_factory.mktemp("search")
    workspace(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(costs, "bench", fake_bench)
        few_steps(patch)
        with pytest.raises(LatencyGateError) as caught:
            searched(folder, TOO_FAST)
    return folder, caught.value


@pytest.fixture
def folder(measured, tmp_path):
    """A copy of it."""
    return Path(shutil.copytree(measured[0], tmp_path / "work"))


def test_a_download_is_searched_for_and_held(tmp_path, monkeypatch):
    """Sizes are those after gzip, in the tables too, and of the written file less than was asked for."""
    workspace(tmp_path)
    monkeypatch.setattr(costs, "bench", fake_bench)
    found = searched(tmp_path, Targets(nbytes=15_000.0, packed=True))
    chosen = found.found.chosen
    whole = next(point for point in found.found.frontier if point.recipe.startswith(WHOLE))
    download = download_bytes([tmp_path / "small.onnx"])
    assert download <= chosen.nbytes <= 15_000 < whole.nbytes
    assert [str(verdict.gate) for verdict in found.verdicts if verdict.outcome == "met"] == ["finite", "max-download"]


def test_a_missed_target_writes_nothing(measured):
    """It says how far it came, by which models, and where its tables are: asking for less takes them up."""
    folder, error = measured
    assert error.exit_code == 4
    assert str(error).startswith("--target-speedup 1000 was not reached: the fastest is ")
    assert str(error).endswith(f"what was measured is kept in {folder}/small.search: ask for less, or delete it")
    assert "\n" not in str(error)
    assert error.found[1].startswith("   1  ")
    assert f'1: -p "{WHOLE}' in "\n".join(error.found)
    names = {"model.onnx", "calib.tsv", "eval.tsv", "tokenizer.json", "small.search"}
    assert {path.name for path in folder.iterdir()} == names


@pytest.mark.parametrize(
    "targets",
    [Targets(speedup=5.0), Targets(nbytes=30_000.0), Targets(5.0, 37_000.0), Targets(drop=30.0)],
    ids=str,
)
def test_a_target_is_reached_and_the_folder_goes(folder, targets):
    """One model and its report are written; the recipe of the model is the chosen one's."""
    found = searched(folder, targets)
    output, chosen = folder / "small.onnx", found.found.chosen
    assert targets.met_by(chosen.speedup, chosen.nbytes, chosen.drop)
    assert chosen.file == found.output == output
    assert found.output_bytes == output.stat().st_size <= chosen.nbytes  # what it says of itself included
    assert not (folder / "small.search").exists()
    noted = json.loads({entry.key: entry.value for entry in onnx.load(output).metadata_props}[KEY])
    assert noted["recipe"] == chosen.recipe == found.provenance.recipe
    report = json.loads((folder / "small.json").read_text())
    assert [point["recipe"] for point in report["found"]["frontier"]] == [p.recipe for p in found.found.frontier]
    held = report["found"]["tables"]
    whole = next(point for point in found.found.frontier if point.recipe.startswith(WHOLE))
    precision = next(one for one in held["precisions"] if ("float-layers" in whole.recipe) == bool(one["floats"]))
    assert [whole.predicted, precision["damage"]] == pytest.approx([whole.damage] * 2, rel=1e-4)
    widths = {one["site"]["kind"]: one["damage"] for one in held["sensitivities"]}
    assert list(widths["heads"]) == ["1", "2", "3"]
    assert held["costs"]["savings"]["heads 0"]["ms"] > 0
    assert [len(held[name]) for name in ("layers", "embeddings", "tokens")] == [2, 8, 2]
    assert bool(held["matrices"]) == (targets.nbytes is not None)
    assert found.comparison is not None
    assert found.found.judged == "calib.tsv all, 40 rows, those of calibration"
    assert sum(one["rows"] for one in report["found"]["losses"]) == 40  # and none of the evaluation rows


@pytest.mark.parametrize(
    ("targets", "error", "said"),
    [
        (Targets(nbytes=10.0), SizeGateError, "--target-size 1e-05MB was not reached: the smallest is"),
        (Targets(speedup=8.0, drop=0.0), AccuracyGateError, "--max-drop 0 does not hold at the targets: the fastest"),
    ],
    ids=str,
)
def test_other_targets_out_of_reach(folder, targets, error, said, monkeypatch):
    """Each with the exit code of its gate, and no file."""
    monkeypatch.setattr(
        "onnxslim_bert.job.search.run.TaskDrop.__call__", lambda drop_of, path: float(path.stat().st_size < 36_600)
    )
    with pytest.raises(error, match=said) as caught:
        searched(folder, targets)
    assert caught.value.exit_code == {SizeGateError: 6, AccuracyGateError: 3}[error]
    assert not (folder / "small.onnx").exists()


def test_what_misses_the_drop_on_evaluation_rows_is_not_written(folder, monkeypatch):
    """What was measured is kept, for a search with other targets."""
    monkeypatch.setattr(Gate, "fails", lambda *_: True)
    found = searched(folder, Targets(drop=5.0))
    assert not found.published
    assert "max-drop" in [str(verdict.gate) for verdict in found.verdicts]
    assert not (folder / "small.onnx").exists()
    assert (folder / "small.search").is_dir()


def test_the_same_search_gives_the_same_bytes(folder, tmp_path):
    """From tables that were measured anew, or taken up."""
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    workspace(fresh)
    found = [searched(one, Targets(speedup=5.0)) for one in (folder, fresh)]
    first, second = ([replace(p, file=Path()) for p in one.found.frontier] for one in found)
    assert first == second
    digests = {hashlib.sha256((one / "small.onnx").read_bytes()).hexdigest() for one in (folder, fresh)}
    assert len(digests) == 1


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from weighing_clock import fake_bench
import test_run
from onnxslim_bert.job.search import costs
from onnxslim_bert.job.search.search import Search
costs.bench = fake_bench
Search._costs = lambda search: os.kill(os.getpid(), signal.SIGKILL)
test_run.searched(Path(sys.argv[1]), test_run.TOO_FAST)
"""


def test_a_killed_process_leaves_what_it_measured(tmp_path, monkeypatch):
    """The next one measures the rest, and nothing else."""
    workspace(tmp_path)
    here = Path(__file__).parent
    command = [sys.executable, "-c", KILLED, tmp_path, here, here.parents[1]]
    assert subprocess.run(command, env=environment(), check=False).returncode == -signal.SIGKILL
    assert (tmp_path / "small.search" / "state.json").exists()
    assert not (tmp_path / "small.onnx").exists()

    def reached(search):
        raise KeyboardInterrupt

    monkeypatch.setattr(
        "onnxslim_bert.job.search.search.measure_sensitivities", lambda *_: pytest.fail("measured again")
    )
    monkeypatch.setattr(Search, "_costs", reached)
    with pytest.raises(KeyboardInterrupt):
        searched(tmp_path, TOO_FAST)


@pytest.mark.parametrize("changed", ["model", "rows", "tokenizer", "options"])
def test_another_model_data_or_setting_is_another_search(folder, changed, monkeypatch):
    """Nothing that was measured is taken for it."""
    keys = []
    monkeypatch.setattr(SearchFolder, "__init__", lambda state, folder, key: keys.append(key) or pytest.exit("kept"))

    def key(working: Working) -> str:
        with pytest.raises(pytest.exit.Exception):
            searched(folder, TOO_FAST, working=working)
        return keys[-1]

    before = key(Working())
    assert key(Working()) == before
    if changed == "model":
        model = onnx.load(folder / "model.onnx")
        model.doc_string = "another"
        onnx.save(model, folder / "model.onnx")
    elif changed == "rows":
        rows = (folder / "calib.tsv").read_text().splitlines()
        (folder / "calib.tsv").write_text("\n".join([*rows[:-1], "w1 w2\t1"]) + "\n")
    elif changed == "tokenizer":
        write_tokenizer(folder, WORDS[::-1])
    assert key(Working(max_length=16) if changed == "options" else Working()) != before


@pytest.mark.parametrize("step", [QuantizeStatic(), Float16()], ids=["int8", "float16"])
def test_only_float32_models_are_searched(step, tmp_path):
    """Said before anything is measured."""
    workspace(tmp_path)
    prepared("bert-ts17-sdpa", Canonicalize(), Fuse(), step).save(tmp_path / "model.onnx", overwrite=True)
    before = contents(tmp_path)
    with pytest.raises(PassError, match="start from the float"):
        searched(tmp_path, TOO_FAST)
    assert contents(tmp_path) == before


def test_a_search_needs_texts(tmp_path):
    workspace(tmp_path)
    with pytest.raises(DataError, match="a search measures on calibration texts: --calib sst2, reviews or a file"):
        searched(tmp_path, TOO_FAST, data=Sources())


@pytest.mark.parametrize("target", [name for name in TARGETS if name != "cpu"])
def test_a_search_times_where_the_model_is_to_run(target, tmp_path, monkeypatch):
    """Plans end in the target's form, and candidates run on it; where none does, nothing is measured."""
    workspace(tmp_path)
    monkeypatch.setattr(costs, "bench", fake_bench)
    fixed = LOWERINGS[target].is_fixed
    where = Deployment(target, (16,) if fixed else ())
    if TARGETS[target].emulated or TARGETS[target].absent():
        with pytest.raises(ProviderError, match=target):
            searched(tmp_path, Targets(nbytes=40_000.0), deployment=where)
        assert not (tmp_path / "small.search").exists()
        return
    found = searched(tmp_path, Targets(nbytes=40_000.0), deployment=where)
    ends = str(lowered(Recipe(()), target, 16 if fixed else None))
    assert all(point.recipe.endswith(ends) for point in found.found.frontier)
    assert found.placement is not None
    assert found.placement.left == ()


def test_an_output_that_exists_is_refused_first(folder):
    (folder / "small.onnx").write_text("mine")
    with pytest.raises(OutputError, match="exists; give another output or --force"):
        searched(folder, TOO_FAST)
    assert (folder / "small.onnx").read_text() == "mine"
    assert (folder / "small.search").is_dir()


def with_corpus(folder: Path) -> Sources:
    """Texts of words that are in no other file."""
    texts = [" ".join(WORDS[(i * k) % len(WORDS)] for k in range(1, 4 + i % 5)) for i in range(1, 120)]
    (folder / "corpus.txt").write_text("\n".join(texts) + "\n")
    return replace(sources(folder), corpus=str(folder / "corpus.txt"))


@needs_torch
def test_a_search_distils(tmp_path, monkeypatch):
    """The plan that is written is one that was trained, once: the file that was judged is what the job makes again."""
    from onnxslim_bert.rewriting.distillation import training

    workspace(tmp_path)
    steps, step = [], training._step
    monkeypatch.setattr(training, "_step", lambda *given: steps.append(1) or step(*given))
    judged, spent = {}, []
    keep = SearchFolder.keep_candidate

    def noting(state, candidate):
        spent.append(len(steps))
        judged[candidate.recipe] = onnx.load(candidate.file).graph.SerializeToString()
        keep(state, candidate)

    monkeypatch.setattr(SearchFolder, "keep_candidate", noting)
    job = Job(tmp_path / "model.onnx", tmp_path / "small.onnx", data=with_corpus(tmp_path), timing=False)
    found = run_search(job, Targets(speedup=10.0), texts=640)  # which no plan reaches without much damage
    chosen = found.found.chosen.recipe
    assert "distill{texts=" in chosen
    assert any("distill{texts=640,epochs=3.0}" in recipe for recipe in judged)
    assert any("prune-hidden{width=" in recipe for recipe in judged)
    assert onnx.load(found.output).graph.SerializeToString() == judged[chosen]
    assert 0 < spent[-1] == len(steps)
    assert found.found.refitted
    assert not any("distill" in point.recipe or "prune-hidden" in point.recipe for point in found.found.refitted)
    assert {path.suffix for path in tmp_path.iterdir()} <= {".onnx", ".json", ".tsv", ".txt"}


@pytest.mark.parametrize(
    ("targets", "corpus", "error", "said"),
    [
        (Targets(drop=1.0), True, PassError, "--distill trains plans for a speed or a size: --target-speedup, "),
        (
            Targets(speedup=2.0),
            False,
            DataError,
            "--distill learns from texts: --corpus sst2 or a file, without",
        ),
    ],
    ids=["no place to go", "no texts"],
)
def test_what_cannot_be_distilled_is_refused_before_anything_is_measured(targets, corpus, error, said, tmp_path):
    workspace(tmp_path)
    data = with_corpus(tmp_path) if corpus else sources(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(error, match=said):
        run_search(Job(tmp_path / "model.onnx", tmp_path / "small.onnx", data=data), targets, texts=100)
    assert contents(tmp_path) == before
