"""Two tasks have one key exactly when what decides their results is the same."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import workspace

from onnxslim_bert.calibration.working import Working
from onnxslim_bert.graph.files import file_sha256
from onnxslim_bert.job import main_recipe as main_recipe_module
from onnxslim_bert.job.data import Sources
from onnxslim_bert.job.deployment import Deployment
from onnxslim_bert.job.main_recipe import Quantization, main_recipe
from onnxslim_bert.proof.gates import Budgets
from onnxslim_bert.recipes.recipe import Recipe
from onnxslim_bert.zoo import tasks as module
from onnxslim_bert.zoo.engines.task import Task
from onnxslim_bert.zoo.planning.plan import PlannedJob, ZooPlan
from onnxslim_bert.zoo.source_files import unchanged
from onnxslim_bert.zoo.tasks import Tasks

DYNAMIC = main_recipe(Quantization(mode="dynamic"))


@pytest.fixture
def job(tmp_path: Path) -> PlannedJob:
    """A job on a model in a folder of its own."""
    model = workspace(tmp_path)
    sources = Sources("reviews", "reviews", rows=8, tokenizer=model.parent / "tokenizer.json")
    return PlannedJob("bert", "int8", "cpu", str(model), "quantize", main_recipe(), Deployment(), Working(), sources)


def key(job: PlannedJob) -> str:
    """Of the task that makes it."""
    return Tasks(file_sha256).make(job).key


def test_names_limits_and_budgets_decide_nothing(job):
    other = replace(job, model="other", recipe="small", memory=1, timeout=2.0, budgets=Budgets(max_drop=0))
    assert key(other) == key(job)


def test_a_folder_that_moved_is_the_same_model(job, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(Path(job.source).parent, moved)
    sources = replace(job.sources, tokenizer=moved / "tokenizer.json")
    assert key(replace(job, source=str(moved / Path(job.source).name), sources=sources)) == key(job)


@pytest.mark.parametrize(
    "changed",
    [
        {"passes": Recipe.parse("canonicalize?")},
        {"passes": DYNAMIC},
        {"working": Working(seed=1)},
        {"working": Working(max_length=64)},
        {"target": "openvino"},
    ],
)
def test_what_decides_the_result_is_in_the_key(job, changed):
    assert key(replace(job, **changed)) != key(job)


def test_rows_are_in_the_key(job):
    assert key(replace(job, sources=replace(job.sources, rows=9))) != key(job)


def test_a_changed_model_or_tokenizer_is_another(job):
    before = key(job)
    with Path(job.source).open("ab") as file:
        file.write(b"\x0a\x00")  # an empty producer name: the same model, other bytes
    middle = key(job)
    assert job.sources.tokenizer is not None
    job.sources.tokenizer.write_text(job.sources.tokenizer.read_text() + "\n")
    assert len({before, middle, key(job)}) == 3


def test_a_tokenizer_of_another_name_is_in_the_key(job):
    other = job.sources.tokenizer.rename(job.sources.tokenizer.with_name("small.json"))
    job = replace(job, sources=replace(job.sources, tokenizer=other))
    before = key(job)
    other.write_text(other.read_text() + "\n")
    assert key(job) != before


def test_transformers_is_in_the_key_of_what_it_reads(job, monkeypatch):
    """An older vocabulary, without tokenizer.json; workers are to have the same version then."""
    folder = job.sources.tokenizer.parent

    def tasks_with(version: str) -> Task:
        monkeypatch.setattr(module, "version_of", lambda _: version)
        return Tasks(file_sha256).make(replace(job, sources=replace(job.sources, tokenizer=folder)))

    assert tasks_with("5").key == tasks_with("6").key
    (folder / "tokenizer.json").unlink()
    assert tasks_with("5").key == tasks_with("6").key, "nothing is there for it to read"
    (folder / "tokenizer_config.json").write_text("{}")
    assert tasks_with("5").key != tasks_with("6").key
    assert tasks_with("6").payload["versions"]["transformers"] == "6"


def test_a_link_stays_a_link(job, tmp_path):
    """Tokenizer and external data lie beside it, and not where it leads."""
    folder = tmp_path / "links"
    folder.mkdir()
    for path in (Path(job.source), job.sources.tokenizer):
        (folder / path.name).symlink_to(path)
    linked = replace(job, source=str(folder / "model.onnx"), sources=replace(job.sources, tokenizer=folder))
    tasks = Tasks(file_sha256)
    for task in (tasks.make(linked), tasks.study([linked])):
        assert (task.payload["source"], task.payload["tokenizer"]) == (str(folder / "model.onnx"), str(folder))
        with unchanged(task.payload) as path:
            assert path == folder / "model.onnx"


def test_whether_the_target_executes_is_in_the_key(job):
    """What was proven elsewhere, or not timed, is where the target is."""
    keys = {Tasks(file_sha256, lambda _, there=there: there).make(job).key for there in (True, False)}
    assert len(keys) == 2


def test_another_version_of_the_software_is_another(job, monkeypatch):
    before = key(job)
    monkeypatch.setattr(module, "versions", lambda target="cpu": {"onnxruntime": "99"})
    assert key(job) != before


def test_where_int8_products_saturate_is_decided_once(job, monkeypatch):
    """The machine that plans decides for all workers."""
    for saturates in (True, False):
        monkeypatch.setattr(main_recipe_module, "u8s8_saturates", lambda answer=saturates: answer)
        planned = replace(job, passes=main_recipe())
        assert ("reduce-range=true" in Tasks(file_sha256).make(planned).payload["recipe"]) is saturates


def test_a_model_is_read_once(job):
    read = []

    def counted(path: Path) -> str:
        read.append(path.name)
        return file_sha256(path)

    tasks = Tasks(counted)
    tasks.make(job)
    tasks.make(replace(job, passes=DYNAMIC))
    assert sorted(read) == sorted(set(read))
    assert Path(job.source).name in read


def test_timings_are_of_what_was_made(job):
    """Another artefact, or another number of rounds, is timed anew; the name of the job does not matter."""
    tasks = Tasks(file_sha256)
    plan, task = ZooPlan(Path("zoo.toml"), (job,)), tasks.make(job)
    first = tasks.time(plan, [(job, task, "model.onnx")])
    assert first.payload["outputs"] == {task.key: {"model": "model.onnx"}}
    assert tasks.time(plan, [(replace(job, recipe="x"), task, "model.onnx")]).key == first.key
    assert tasks.time(replace(plan, rounds=31), [(job, task, "model.onnx")]).key != first.key
    assert tasks.time(plan, [(job, replace(task, key="0" * 64), "model.onnx")]).key != first.key


def test_what_is_timed_together_fits_every_recipe(job):
    tasks, plan = Tasks(file_sha256), ZooPlan(Path("zoo.toml"), (job,))
    short = replace(job, working=Working(max_length=16))
    made = [(each, tasks.make(each), "model.onnx") for each in (job, short)]
    assert tasks.time(plan, made).payload["max_length"] == tasks.time(plan, made[::-1]).payload["max_length"] == 16


def test_a_study_is_of_the_model_and_its_rows(job):
    tasks = Tasks(file_sha256)
    first = tasks.study([job])
    assert tasks.study([replace(job, passes=DYNAMIC)]).key == first.key
    assert tasks.study([replace(job, sources=replace(job.sources, rows=9))]).key != first.key
