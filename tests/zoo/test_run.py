"""A zoo from its file to its folder: jobs in processes of their own, rows for all of them, nothing run twice."""

import json
import re
import shutil
from pathlib import Path

import onnx
import pytest
from command_line import assert_refused, contents, run, run_process, workspace

from onnxslim_bert.zoo.engines import process
from onnxslim_bert.zoo.engines.local import LocalEngine

ZOO = """
[defaults]
calib = "calib.tsv"
data = "eval.tsv"
timeout = "5min"
[recipes.int8]
[recipes.fast]
passes = "canonicalize?,fuse"
[[models]]
path = "model.onnx"
name = "bert"
[run]
rounds = 3
length = 8
"""


def untyped(content: bytes) -> bytes:
    """A model whose largest weight is of no type."""
    model = onnx.ModelProto.FromString(content)
    max(model.graph.initializer, key=lambda weight: len(weight.raw_data)).data_type = 0
    return model.SerializeToString()


def elsewhere(content: bytes) -> bytes:
    """A model with a weight in a file that is not there."""
    model = onnx.ModelProto.FromString(content)
    weight = max(model.graph.initializer, key=lambda weight: len(weight.raw_data))
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="gone.bin")
    return model.SerializeToString()


BAD = {
    "cut": lambda content: content[:-2000],
    "empty": lambda _: b"",
    "text": lambda _: b"no model at all",
    "untyped": untyped,
    "elsewhere": elsewhere,
}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with zoo.toml and its run in out/, in new processes; what follows runs in forks."""
    folder = tmp_path_factory.mktemp("zoo")
    workspace(folder)
    (folder / "zoo.toml").write_text(ZOO)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "start", process.in_new_python)
        outcome = run("zoo", "run", folder / "zoo.toml", "-o", folder / "out")
    assert outcome.code == 0, outcome
    return folder


@pytest.fixture
def zoo(ran: Path, tmp_path: Path) -> Path:
    """The same, to change."""
    copy = tmp_path / "zoo"
    shutil.copytree(ran, copy, copy_function=shutil.copy2)
    return copy


def document(folder: Path) -> dict:
    """The run's document."""
    found: dict = json.loads((folder / "out" / "run.json").read_text())
    return found


def again(zoo: Path, *arguments: object, old: str = "", new: str = "") -> tuple[dict, str]:
    """Run it again, with this change to its file; the document, and what was said meanwhile."""
    text = (zoo / "zoo.toml").read_text()
    (zoo / "zoo.toml").write_text(text.replace(old, new) if old else text)
    outcome = run("zoo", "run", zoo / "zoo.toml", "-o", zoo / "out", *arguments)
    return document(zoo) | {"code": outcome.code}, outcome.err


def test_every_job_is_a_row_with_its_artefact_proof_and_time(ran):
    rows = document(ran)["rows"]
    assert [(row["recipe"], row["status"], row["attempts"], row["cached"]) for row in rows] == [
        ("int8", "done", 1, False),
        ("fast", "done", 1, False),
    ]
    for row in rows:
        assert (ran / "out" / row["path"]).is_file()
        assert row["result"]["comparison"]["rows"] == 24
        assert row["timed"]["latency"]["median_ms"] > 0
        assert row["peak_bytes"] > 10_000_000


def test_sources_are_studied_and_timed(ran):
    (source,) = document(ran)["sources"]
    assert source["nbytes"] == (ran / "model.onnx").stat().st_size
    assert [layer["layer"] for layer in source["study"]["layers"]] == [0, 1, 2]
    assert source["timings"]["cpu"]["rounds"] == 3


def test_an_unchanged_zoo_runs_nothing(zoo):
    before = contents(zoo / "out" / "objects")
    found, said = again(zoo)
    assert said == ""
    assert all(row["cached"] and row["attempts"] == 1 for row in found["rows"])
    assert contents(zoo / "out" / "objects") == before


def test_only_what_changed_runs(zoo):
    found, said = again(zoo, old="canonicalize?,fuse", new="canonicalize?")
    assert [row["cached"] for row in found["rows"]] == [True, False]
    assert [line.split(":")[0] for line in said.splitlines()] == ["3/3 making bert fast cpu", "4/4 timing bert cpu"]


def test_budgets_are_judged_anew_on_the_same_artefacts(zoo):
    found, said = again(zoo, old="[recipes.int8]", new="[recipes.int8]\nbudgets = { max-size = 1000 }")
    assert (said, found["code"]) == ("", 6)
    assert [row["exit_code"] for row in found["rows"]] == [6, 0]


def test_a_failing_job_is_a_row_and_the_others_go_on(zoo):
    """And stays one until it is asked for again."""
    found, said = again(zoo, old="canonicalize?,fuse", new="canonicalize?,quantize-static,fuse,drop-layers{layers=7}")
    first, second = found["rows"]
    assert (first["status"], second["status"], found["code"]) == ("done", "failed", 2)
    assert second["message"] in said
    found, said = again(zoo)
    assert found["rows"][1]["attempts"] == 1
    assert said == f"1 job failed before and was not tried again: `onnxslim zoo retry {zoo / 'out'}` lets them run\n"
    outcome = run("zoo", "retry", zoo / "out", "make bert fast cpu")
    assert outcome.out == "make bert fast cpu: was failed, runs again\n"
    assert "bert fast cpu" in again(zoo)[1]


def test_models_that_cannot_be_read_are_rows_and_the_others_go_on(zoo):
    """Cut, empty, of no type, and of weights that are not there."""
    for name, spoil in BAD.items():
        (zoo / f"{name}.onnx").write_bytes(spoil((zoo / "model.onnx").read_bytes()))
    found, _ = again(zoo, old='path = "model.onnx"\nname = "bert"', new='path = "*.onnx"')
    ends = {(row["model"], row["recipe"]): (row["status"], row["exit_code"]) for row in found["rows"]}
    assert ends == {
        (model, recipe): ("failed", 2) if model in BAD else ("done", 0)
        for model in ("model", *BAD)
        for recipe in ("int8", "fast")
    }
    assert found["code"] == 2
    reasons = {row["model"]: row["message"] for row in found["rows"]}
    assert "not a complete ONNX file" in reasons["cut"]
    assert "the file is empty" in reasons["empty"]
    assert all(source["study"]["reason"] for source in found["sources"] if source["name"] in BAD)


def test_limits_end_a_job_until_they_are_wider(zoo):
    found, _ = again(zoo, old="[recipes.fast]", new='[recipes.fast]\nmemory = "1MB"\nseed = 1')
    assert (found["rows"][1]["status"], found["rows"][1]["exit_code"], found["code"]) == ("memory", 1, 1)
    found, _ = again(zoo, old='"1MB"', new='"4GB"')
    assert (found["rows"][1]["status"], found["rows"][1]["attempts"], found["code"]) == ("done", 2, 0)


def test_a_source_that_could_not_be_studied_says_why(zoo):
    """In the run, and so in its report."""
    limited = '[recipes.int8]\nmemory = "1MB"\nseed = 1'
    (source,) = again(zoo, old="[recipes.int8]", new=limited)[0]["sources"]
    assert re.fullmatch(r"memory: .* MB resident, more than its 1 MB", source["study"]["reason"])
    assert source["study"]["layers"] == []
    assert source["timings"]["cpu"]["reason"] == ""


def test_what_is_passed_over_is_said(zoo):
    """The int8 model that lies beside its source, where `quantize` writes it."""
    shutil.copy(zoo / "out" / "models" / "bert" / "int8.cpu.onnx", zoo / "model.int8.onnx")
    found, said = again(zoo, old='"model.onnx"\nname = "bert"', new='"*.onnx"')
    assert [row["model"] for row in found["rows"]] == ["model", "model"]
    assert f"left out: {zoo / 'model.int8.onnx'}: written by onnxslim-bert" in said


def test_status_says_what_ran(ran):
    outcome = run("zoo", "status", ran / "out", "--json")
    tasks = json.loads(outcome.out)["tasks"]
    assert sorted((task["kind"], task["status"]) for task in tasks) == [
        ("make", "done"),
        ("make", "done"),
        ("study", "done"),
        ("time", "done"),
    ]
    assert "4 done" in run("zoo", "status", ran / "out").out


def test_garbage_is_what_the_last_run_does_not_need(zoo):
    objects = zoo / "out" / "objects"
    before = set(objects.iterdir())
    again(zoo, old="canonicalize?,fuse", new="canonicalize?")
    dry = run("zoo", "gc", zoo / "out", "--dry-run").out
    assert "2 things" in dry, "the artefact of the old recipe, and its timing"
    assert before < set(objects.iterdir())
    assert run("zoo", "gc", zoo / "out").out == dry.replace("would be freed", "freed")
    assert len(set(objects.iterdir())) == 4
    assert run("zoo", "gc", zoo / "out", "--cache-age", 0).out.count("cache/") > 3


def test_junit_markdown_and_json(zoo):
    outcome = run(
        *("zoo", "run", zoo / "zoo.toml", "-o", zoo / "out"),
        *("--json", "--junit", zoo / "j.xml", "--markdown", zoo / "s.md"),
    )
    assert json.loads(outcome.out)["rows"] == document(zoo)["rows"]
    assert 'name="made on bert int8 cpu"' in (zoo / "j.xml").read_text()
    assert "bert" in (zoo / "s.md").read_text()


def test_every_mistake_is_printed_and_nothing_is_made(zoo):
    (zoo / "zoo.toml").write_text(ZOO.replace("[recipes.int8]", "[recipes.int8]\nmod = 1\nbatch = 2"))
    outcome = run("zoo", "run", zoo / "zoo.toml", "-o", zoo / "new")
    assert outcome.code == 2
    lines = outcome.err.splitlines()
    assert [line.split(" ")[1] for line in lines] == ["zoo.toml:7:", "zoo.toml:8:"]
    assert not (zoo / "new").exists()


def test_a_folder_with_a_zoo_file_is_that_file(zoo):
    assert run("zoo", "run", zoo, "-o", zoo / "out").err == ""
    assert_refused(run("zoo", "run", zoo, "--calib", "reviews", "-o", zoo / "out"), "--calib does nothing")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["-o", "{}"], "models is no folder of `onnxslim zoo run`"),
        (["-o", "{}/new", "--storage", "zz://bucket"], "zz://bucket: cannot be opened"),
        (["-o", "{}/new", "--markdown", "{}/no/summary.md"], "no folder"),
    ],
)
def test_outputs_that_cannot_be_are_refused_at_once(zoo, arguments, reason):
    """Before anything is made, or replaced."""
    (zoo / "models").mkdir()
    (zoo / "models" / "mine.onnx").write_text("precious")
    before = contents(zoo)
    assert_refused(run("zoo", "run", zoo / "zoo.toml", *(part.format(zoo) for part in arguments)), reason)
    assert contents(zoo) == before


def test_what_was_blocked_is_tried_again(zoo):
    """Its storage keeps nothing; once it does, the next run goes on."""
    store = zoo / "store"
    store.mkdir()
    (store / "cache").write_text("no folder")
    found, said = again(zoo, "--storage", store)
    assert [(row["status"], row["exit_code"], row["cached"]) for row in found["rows"]] == [("blocked", 2, False)] * 2
    assert "cannot be written" in found["rows"][0]["message"]
    assert "zoo retry" not in said
    assert "`onnxslim zoo run` tries again what was blocked" in run("zoo", "status", zoo / "out").out
    (store / "cache").unlink()
    found, _ = again(zoo, "--storage", store)
    assert [(row["status"], row["attempts"]) for row in found["rows"]] == [("done", 3)] * 2, "the first was in out/"
    assert found["code"] == 0


def test_what_was_made_where_the_target_does_not_execute_is_made_again_where_it_does(zoo, monkeypatch):
    monkeypatch.setattr(LocalEngine, "executes", lambda self, target: False)
    found, _ = again(zoo)
    assert [row["cached"] for row in found["rows"]] == [False, False]


def test_an_interrupted_run_leaves_the_models_of_before(zoo, monkeypatch):
    """Under their names, until they are made anew."""
    before = contents(zoo / "out" / "models")

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("onnxslim_bert.zoo.conductor.Conductor.run", interrupt)
    found, _ = again(zoo, old="[defaults]", new="[defaults]\nseed = 1")
    assert (found["code"], [row["status"] for row in found["rows"]]) == (130, ["waiting", "waiting"])
    assert contents(zoo / "out" / "models") == before
    assert found["interrupted"]
    monkeypatch.undo()
    assert not again(zoo)[0]["interrupted"]


def test_a_run_whose_models_cannot_be_named_is_written_down(zoo, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    (zoo / "out" / "run.json").unlink()
    monkeypatch.setattr("onnxslim_bert.zoo.publish._link", full)
    found, said = again(zoo)
    assert (found["code"], [row["path"] for row in found["rows"]]) == (2, ["", ""])
    assert "cannot be laid out (No space left on device)" in said


def test_a_relative_storage_is_written_down_whole(zoo, monkeypatch):
    """Or gc would look for it where it is called."""
    monkeypatch.chdir(zoo)
    outcome = run("zoo", "run", "zoo.toml", "-o", "elsewhere", "--storage", "store")
    assert outcome.code == 0
    assert json.loads((zoo / "elsewhere" / "run.json").read_text())["storage"] == str(zoo / "store")
    monkeypatch.chdir("/")
    assert "0 things" in run("zoo", "gc", zoo / "elsewhere").out


def test_a_storage_that_takes_nothing_is_refused_at_once(zoo):
    (zoo / "store").write_text("a file")
    outcome = run("zoo", "run", zoo / "zoo.toml", "-o", zoo / "fresh", "--storage", zoo / "store")
    assert_refused(outcome, "store", "cannot be written")
    assert not (zoo / "fresh").exists()


def test_an_interrupted_run_says_what_stays(zoo, monkeypatch):
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("onnxslim_bert.zoo.run.run_zoo", interrupt)
    outcome = run("zoo", "run", zoo / "zoo.toml", "-o", zoo / "out")
    assert (outcome.code, outcome.out) == (130, "")
    assert outcome.err == (
        f"onnxslim: interrupted; what has ended is in {zoo / 'out'}, and the same command goes on from there\n"
    )


def test_status_says_who_works_and_what_waits(zoo):
    """What a killed run left running waits."""
    from onnxslim_bert.zoo.engines.task import Task
    from onnxslim_bert.zoo.store.state import RunState

    with RunState(zoo / "out" / "zoo.sqlite") as state:
        with state.lock():
            state.begin(Task("f" * 64, "make", "bert new cpu"), "here 1")
            outcome = run_process("zoo", "status", zoo / "out")
            assert "1 running\n`zoo run` goes on in process" in outcome.out
        state.begin(Task("f" * 64, "make", "bert new cpu"), "here 1")
    assert run("zoo", "status", zoo / "out").out.endswith(
        "1 waiting\nnothing goes on here: `onnxslim zoo run` finishes what waits\n"
    )
    assert json.loads(run("zoo", "status", zoo / "out", "--json").out)["going"] is None


def test_a_folder_of_models_is_a_zoo(tmp_path):
    workspace(tmp_path)
    outcome = run("zoo", "run", tmp_path, "--calib", tmp_path / "calib.tsv", "-o", tmp_path / "out")
    assert outcome.code == 0, outcome
    assert [row["status"] for row in document(tmp_path)["rows"]] == ["done"]


def test_one_run_at_a_time(zoo):
    from onnxslim_bert.zoo.store.state import RunState

    with RunState(zoo / "out" / "zoo.sqlite") as state, state.lock():
        outcome = run_process("zoo", "run", zoo / "zoo.toml", "-o", zoo / "out")
    assert_refused(outcome, "goes on here in process")
