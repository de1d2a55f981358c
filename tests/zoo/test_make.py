"""A job writes what the command line writes, proves it, and trusts nothing that changed since it was planned."""

from dataclasses import replace
from pathlib import Path

import pytest
from command_line import run, workspace

from onnxslim_bert.calibration.working import Working
from onnxslim_bert.errors import DataError, ModelError
from onnxslim_bert.graph.files import file_sha256
from onnxslim_bert.job.data import Sources
from onnxslim_bert.job.deployment import Deployment
from onnxslim_bert.job.main_recipe import main_recipe
from onnxslim_bert.recipes.recipe import Recipe
from onnxslim_bert.zoo.engines.task import Task
from onnxslim_bert.zoo.make import make
from onnxslim_bert.zoo.planning.plan import PlannedJob
from onnxslim_bert.zoo.records import Result
from onnxslim_bert.zoo.store.storage import Storage
from onnxslim_bert.zoo.tasks import Tasks

PASSES = "canonicalize?,fuse,prune-ffn{keep=0.5},quantize-static"


@pytest.fixture
def job(tmp_path: Path) -> PlannedJob:
    """The main job on a model with its rows beside it."""
    folder = tmp_path / "given"
    folder.mkdir()
    model = workspace(folder)
    sources = Sources(str(folder / "calib.tsv"), str(folder / "eval.tsv"), rows=256, tokenizer=folder)
    return PlannedJob("bert", "int8", "cpu", str(model), "quantize", main_recipe(), Deployment(), Working(), sources)


def made(job: PlannedJob, tmp_path: Path, task: Task | None = None) -> tuple[Result, Path]:
    """What its task says, and the folder that it filled."""
    folder = tmp_path / "artefact"
    folder.mkdir()
    return make(task or Tasks(file_sha256).make(job), Storage(tmp_path / "storage"), folder), folder


def given(job: PlannedJob) -> list[object]:
    """The data of the job on a command line."""
    return ["--calib", job.sources.calibration, "--data", job.sources.evaluation]


def test_the_main_job_writes_the_bytes_of_the_command_line(job, tmp_path):
    output = tmp_path / "model.onnx"
    assert run("quantize", job.source, "-o", output, *given(job)).code == 0
    result, folder = made(job, tmp_path)
    assert (folder / "model.onnx").read_bytes() == output.read_bytes()
    assert [path.name for path in folder.iterdir()] == ["model.onnx"], "a report would tell of this host"
    assert result.files == {"model.onnx": file_sha256(output)}
    assert result.comparison is not None
    assert (result.comparison.rows, len(result.worst)) == (24, 10)
    assert all(step.damage is not None for step in result.steps)
    assert sum(result.parts.values()) > 0


def test_a_recipe_writes_the_bytes_of_slim(job, tmp_path):
    output = tmp_path / "model.onnx"
    assert run("slim", job.source, "-p", PASSES, "--rows", 256, "-o", output, *given(job)).code == 0
    result, folder = made(replace(job, passes=Recipe.parse(PASSES)), tmp_path)
    assert (folder / "model.onnx").read_bytes() == output.read_bytes()
    assert [step.step for step in result.steps] == [str(step) for step in Recipe.parse(PASSES).steps]


def test_what_is_cached_changes_nothing(job, tmp_path):
    first, _ = made(job, tmp_path)
    assert any((tmp_path / "storage" / "cache").iterdir())
    (tmp_path / "artefact").rename(tmp_path / "first")
    again, _ = made(job, tmp_path)
    assert again.files == first.files


def test_several_lengths_are_a_folder(job, tmp_path):
    qnn = Deployment("qnn", (8, 16))
    result, folder = made(replace(job, target="qnn", passes=main_recipe(where=qnn), deployment=qnn), tmp_path)
    assert result.model == "model/model.16.onnx"
    assert set(result.files) == {
        f"model/{name}" for name in ("manifest.json", "model.data", "model.8.onnx", "model.16.onnx")
    }
    assert (folder / result.model).is_file()


def test_a_source_that_changed_since_is_refused(job, tmp_path):
    task = Tasks(file_sha256).make(job)
    with Path(job.source).open("ab") as file:
        file.write(b"\x12\x00")
    with pytest.raises(ModelError, match="has changed since the run began"):
        made(job, tmp_path, task)


@pytest.mark.parametrize("name", ["calib", "eval"])
def test_other_rows_than_planned_are_refused(job, tmp_path, name):
    task = Tasks(file_sha256).make(job)
    path = Path(job.source).parent / f"{name}.tsv"
    path.write_text(path.read_text() + "w1 w2 w3 w4\t1\n")
    with pytest.raises(DataError, match="rows on this machine are not those"):
        made(job, tmp_path, task)
