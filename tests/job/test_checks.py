"""Every way into a job, and everything that a job refuses: each pair ends alike, writes nothing, early where it can."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from command_line import WORDS, contents, workspace, write_rows, write_tokenizer
from command_line import run as run_command
from onnx import TensorProto, helper, numpy_helper

from onnxslim_bert.calibration.working import Working
from onnxslim_bert.errors import (
    DataError,
    LatencyGateError,
    ModelError,
    OutputError,
    PassError,
    SizeGateError,
    SlimError,
)
from onnxslim_bert.graph.files import file_sha256
from onnxslim_bert.job import make, prove
from onnxslim_bert.job import run as run_module
from onnxslim_bert.job.data import Data, Sources
from onnxslim_bert.job.deployment import Deployment
from onnxslim_bert.job.job import Job
from onnxslim_bert.job.run import run
from onnxslim_bert.job.seal import Gate
from onnxslim_bert.job.search import run as search_run
from onnxslim_bert.job.search.points import Found, Point
from onnxslim_bert.job.search.state import SearchState
from onnxslim_bert.job.search.targets import Targets
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.proof.gates import Budgets
from onnxslim_bert.recipes.provenance import stamp
from onnxslim_bert.recipes.recipe import Recipe
from onnxslim_bert.targets import int8_check
from onnxslim_bert.zoo import make as zoo_make
from onnxslim_bert.zoo.planning.plan import PlannedJob
from onnxslim_bert.zoo.store.storage import Storage
from onnxslim_bert.zoo.tasks import Tasks

INT8 = "canonicalize?,fuse?,quantize-static"
NAME = "out.onnx"


@dataclass
class Asked:
    """A folder with a model and its rows, and what a job there is asked for besides."""

    folder: Path
    evaluation: str = "eval.tsv"
    budgets: Budgets = field(default_factory=Budgets)

    @property
    def model(self) -> Path:
        return self.folder / "model.onnx"

    @property
    def zoo(self) -> Path:
        """Where a zoo job writes."""
        return self.folder.with_name("task") / "artefact"

    @property
    def sources(self) -> Sources:
        return Sources(str(self.folder / "calib.tsv"), str(self.folder / self.evaluation))

    @property
    def flags(self) -> list[object]:
        """On a command line."""
        rows = ["--calib", self.sources.calibration, "--data", self.sources.evaluation]
        budgets = dataclasses.asdict(self.budgets).items()
        given = [(f"--{name.replace('_', '-')}", str(value)) for name, value in budgets if value is not None]
        return [*rows, "-o", self.folder / NAME, *[text for pair in given for text in pair]]


@dataclass(frozen=True)
class End:
    """How it ended: the exit code, and what was said. kind: the class of the error, where it can be seen."""

    code: int
    said: str
    kind: type[SlimError] | None = None


def command(*arguments: object) -> End:
    outcome = run_command(*arguments)
    return End(outcome.code, outcome.err)


def called(job: Callable[[], Any]) -> End:
    try:
        job()
    except SlimError as error:
        return End(error.exit_code, str(error), type(error))
    return End(0, "")


def by_quantize(asked: Asked) -> End:
    return command("quantize", asked.model, *asked.flags, "--method", "minmax")


def by_slim(asked: Asked) -> End:
    return command("slim", asked.model, "-p", INT8, *asked.flags)


def by_search(asked: Asked) -> End:
    return command("slim", asked.model, "--target-size", "60kB", *asked.flags)


def by_zoo(asked: Asked) -> End:
    """A zoo job writes model.onnx to a folder of its own."""
    passes = Recipe.parse(INT8)
    planned = PlannedJob("m", "r", "cpu", str(asked.model), INT8, passes, Deployment(), Working(), asked.sources)
    task, storage = Tasks(file_sha256).make(planned), Storage(asked.folder.with_name("storage"))
    return called(lambda: zoo_make.make(task, storage, asked.zoo))


def by_python(asked: Asked) -> End:
    job = Job(asked.model, asked.folder / NAME, Recipe.parse(INT8), asked.sources, gate=Gate(asked.budgets))
    return called(lambda: run(job).enforce())


def by_python_untimed(asked: Asked) -> End:
    job = Job(asked.model, asked.folder / NAME, Recipe.parse(INT8), asked.sources, gate=Gate(asked.budgets))
    return called(lambda: run(replace(job, timing=False)).enforce())


ENTRIES = [by_quantize, by_slim, by_search, by_zoo, by_python, by_python_untimed]


# what goes wrong: before any work


def same_rows(asked: Asked) -> Asked:
    return replace(asked, evaluation="calib.tsv")


def label_out_of_range(asked: Asked) -> Asked:
    path = asked.folder / "eval.tsv"
    path.write_text(path.read_text() + "w1 w2\t99\n")
    return asked


def larger_tokenizer(asked: Asked) -> Asked:
    write_tokenizer(asked.folder, [*WORDS, *(f"more{number}" for number in range(9))])
    return asked


def output_taken(asked: Asked) -> Asked:
    (asked.folder / NAME).write_text("precious")
    (asked.zoo / "model.onnx").write_text("precious")
    return asked


BEFORE: list[tuple[Callable[[Asked], Asked], type[SlimError], str]] = [
    (same_rows, DataError, "40 of 40 calibration rows are evaluation rows too"),
    (label_out_of_range, DataError, "99"),
    (larger_tokenizer, DataError, "tokenizer"),
    (output_taken, OutputError, "exists; give another output or --force to overwrite it"),
]


@pytest.fixture
def asked(tmp_path: Path) -> Asked:
    folder = tmp_path / "work"
    folder.mkdir()
    workspace(folder)
    asked = Asked(folder)
    asked.zoo.mkdir(parents=True)
    return asked


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.__name__)
@pytest.mark.parametrize(("spoil", "kind", "said"), BEFORE, ids=lambda case: getattr(case, "__name__", ""))
def test_what_can_be_known_before_the_work_is_said_before_it(asked, monkeypatch, spoil, kind, said, entry):
    monkeypatch.setattr(make, "walk", lambda *_: pytest.fail("a pass ran"))
    monkeypatch.setattr(search_run, "find_recipe", lambda *_: pytest.fail("a search began"))
    asked = spoil(asked)
    assert_nothing_comes_of(asked, entry, kind, said)


# what goes wrong: afterwards


def answers_overflow(asked: Asked, patch: pytest.MonkeyPatch) -> None:
    """The classes' weights become so large, and stay finite, that every answer is infinite."""

    def spoiled(model: Model, provenance: Any) -> None:
        stamp(model, provenance)
        for name, constant in model.constants().items():
            if constant.values.ndim == 2 and 5 in constant.values.shape and constant.values.dtype == np.float32:
                model.replace(name, np.full_like(constant.values, 3e38))

    patch.setattr(make, "stamp", spoiled)


def weights_become_float(asked: Asked, patch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime restores a weight at every run."""
    weight = numpy_helper.from_array(np.ones((128, 64), np.int8), "weight")
    node = helper.make_node("DequantizeLinear", ["weight", "scale"], ["restored"])
    graph = helper.make_graph(
        [node], "g", [], [helper.make_tensor_value_info("restored", TensorProto.FLOAT, None)], [weight]
    )
    patch.setattr(int8_check, "optimized_graph", lambda _: graph)


def source_changes(asked: Asked, patch: pytest.MonkeyPatch) -> None:
    """Another file takes its name while the job proves what it made."""
    original = prove.prove

    def meanwhile(*given: Any) -> Any:
        proof = original(*given)
        other = onnx.load(asked.model)
        other.doc_string = "another"
        onnx.save(other, asked.folder / "other.onnx")
        (asked.folder / "other.onnx").replace(asked.model)
        return proof

    patch.setattr(run_module, "prove", meanwhile)


AFTER: list[tuple[Callable[[Asked, pytest.MonkeyPatch], None], type[SlimError], str]] = [
    (answers_overflow, PassError, "answers NaN or infinity"),
    (weights_become_float, PassError, "ONNX Runtime dequantizes weight 'weight' at every run"),
    (source_changes, ModelError, "changed while it was worked on; nothing was written: run it again"),
]


@pytest.fixture
def _found_at_once(asked, monkeypatch):
    """A search that needs no measuring: its recipe is that of the others."""
    point = Point(INT8, Path("p.onnx"), 40_000, 1.0, 2.0, 0.1, 0.1, 0.0)
    found = Found(Targets(nbytes=60_000.0), "rows", 2.0, (point,), point, {})
    state = SearchState(asked.folder.with_name("small.search"), "key")
    monkeypatch.setattr(search_run, "find_recipe", lambda *_: (found, state))


@pytest.mark.usefixtures("_found_at_once")
@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.__name__)
@pytest.mark.parametrize(("spoil", "kind", "said"), AFTER, ids=lambda case: getattr(case, "__name__", ""))
def test_what_is_not_right_is_not_written(asked, monkeypatch, spoil, kind, said, entry):
    spoil(asked, monkeypatch)
    assert_nothing_comes_of(asked, entry, kind, said)


@pytest.mark.usefixtures("_found_at_once")
@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.__name__)
def test_the_same_jobs_are_written_when_nothing_is_wrong(asked, entry):
    """So that it is what was spoiled that ends the others."""
    assert entry(asked).code == 0
    assert (asked.zoo / "model.onnx" if entry is by_zoo else asked.folder / NAME).is_file()


# budgets


@pytest.mark.parametrize("entry", [by_quantize, by_slim, by_python, by_python_untimed], ids=lambda e: e.__name__)
@pytest.mark.parametrize(
    ("budgets", "kind"),
    [(Budgets(min_speedup=1000.0), LatencyGateError), (Budgets(max_size=1), SizeGateError)],
    ids=["speed", "size"],
)
def test_a_missed_budget_writes_nothing(asked, budgets, kind, entry):
    """Also where times were not asked for: a budget on speed is timed."""
    assert_nothing_comes_of(replace(asked, budgets=budgets), entry, kind, "missed")


@pytest.mark.parametrize("entry", [by_quantize, by_slim, by_python, by_python_untimed], ids=lambda e: e.__name__)
def test_a_budget_that_nothing_would_be_held_against_is_refused(asked, monkeypatch, entry):
    """Here for the drop, of rows without labels."""
    monkeypatch.setattr(make, "walk", lambda *_: pytest.fail("a pass ran"))
    (asked.folder / "texts.txt").write_text("w1 w2\nw3 w4\n")
    wanted = replace(asked, budgets=Budgets(max_drop=1.0), evaluation="texts.txt")
    assert_nothing_comes_of(wanted, entry, DataError, "a budget for the drop needs labels")


# rows as they are


def test_rows_that_a_program_gives_are_held_to_the_same(asked):
    """Not only those that are named."""
    calibration, _ = asked.sources.load(0)
    reader = asked.sources.tokenizer_for(asked.model, calibration)
    rows = Data(calibration, calibration)
    job = Job(asked.model, asked.folder / NAME, Recipe.parse(INT8), rows, working=Working(tokenizer=reader))
    with pytest.raises(DataError, match="calibration rows are evaluation rows too"):
        run(job)
    write_rows(asked.folder / "more.tsv", 20, seed=3)
    report = run(replace(job, data=Data(calibration, Sources(None, str(asked.folder / "more.tsv")).load(0)[1])))
    assert report.published
    assert report.comparison is not None


def assert_nothing_comes_of(asked: Asked, entry: Callable[[Asked], End], kind: type[SlimError], said: str) -> None:
    """One line, the exit code of its class, and no file besides those that were there."""
    before, beside = contents(asked.folder), contents(asked.zoo)
    end = entry(asked)
    assert (end.code, end.kind or kind) == (kind.exit_code, kind), end
    assert said in end.said
    assert end.said.strip().count("\n") == 0
    after = contents(asked.folder)
    assert after.keys() == before.keys()
    changed = {name for name in before if before[name] != after[name]}
    assert changed <= {"model.onnx"}  # by who changed the source
    assert contents(asked.zoo) == beside
