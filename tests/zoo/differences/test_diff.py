"""Two runs are compared job by job, and a job that got worse fails with the exit code of what it lost."""

import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command_line import assert_refused, run

from onnxslim_bert.errors import SlimError
from onnxslim_bert.machine import Host
from onnxslim_bert.proof.bench import Latency
from onnxslim_bert.proof.comparison import Comparison, Score
from onnxslim_bert.proof.documents import report_json
from onnxslim_bert.proof.fidelity import Fidelity
from onnxslim_bert.proof.gates import Verdict
from onnxslim_bert.proof.intervals import Interval, wilson
from onnxslim_bert.recipes.provenance import Provenance
from onnxslim_bert.targets.placement import Placement
from onnxslim_bert.zoo.differences.changes import difference
from onnxslim_bert.zoo.differences.diff import Diff, diff
from onnxslim_bert.zoo.differences.diff_tables import diff_summary
from onnxslim_bert.zoo.differences.regressions import Limits, check
from onnxslim_bert.zoo.records import Result, Row, Run, Source, Timed, Timing

ROWS = 872
POINT = Interval(0.0, 0.0, 0.0)


def comparison(drop: Interval | None, agreement: float = 99.0, broken: int = 0, rows: str = "f" * 64) -> Comparison:
    """Evaluated on 872 rows. drop: of the accuracy, points. agreement: percent."""
    base = Interval(90.0, 88.0, 92.0)
    return Comparison(
        data="sst2",
        split="validation",
        rows=ROWS,
        fingerprint=rows,
        output="logits",
        kind="classes",
        scores=() if drop is None else (Score("accuracy", base, base, drop),),
        mcnemar=None,
        fidelity=Fidelity(ROWS, 0.02, 0.3, wilson(round(agreement * ROWS / 100), ROWS)),
        broken=broken,
        resamples=2000,
        seed=0,
    )


def row(
    name: str = "bert int8 cpu",
    *,
    drop: Interval | None = POINT,
    agreement: float = 99.0,
    nbytes: int = 23_000_000,
    speedup: Interval | None = None,
    placement: Placement | None = None,
    seen: Comparison | None = None,
    source: str = "5" * 64,
    **changed: object,
) -> Row:
    """A job that is done."""
    model, recipe, target = name.split()
    result = Result(
        key="k" * 64,
        files={"model.onnx": "0" * 64},
        model="model.onnx",
        source_bytes=90_000_000,
        output_bytes=nbytes,
        provenance=Provenance("1", "1", "1", "model.onnx", source, "fuse", "", ""),
        steps=(),
        methods={},
        placement=placement,
        unproven="",
        proven_on="cpu",
        comparison=seen or comparison(drop, agreement),
        worst=(),
        parts={},
    )
    timed = Timed(Latency("model.onnx", 1, 128, 10.0, 11.0, 12.0, speedup), {}) if speedup else None
    made = Row("k" * 64, model, recipe, target, "quantize", "done", result=result, timed=timed)
    return replace(made, **changed)  # type: ignore[arg-type]


def failed(name: str = "bert int8 cpu", code: int = 1, status: str = "crashed") -> Row:
    """A job that ended without a result."""
    return replace(row(name), status=status, message="out of luck", exit_code=code, result=None)


OVER = row(drop=Interval(0.0, -0.3, 0.3), exit_code=4, verdicts=(Verdict("min-speedup", "missed", "1x, wanted 2x"),))


def compared(old: Row | None, new: Row | None, limits: Limits = Limits(), cpus: tuple[str, str] = ("x", "x")) -> Diff:  # noqa: B008
    """Two runs of at most one job."""
    runs = (
        Run("zoo.toml", (source_on(cpu),), (row,) if row else ()) for row, cpu in zip((old, new), cpus, strict=True)
    )
    return diff(*runs, limits)


def source_on(cpu: str) -> Source:
    """The model, timed on a machine with this CPU."""
    timing = Timing("t" * 64, "cpu", None, {}, Host(cpu, 2, 0.5, "Linux", "1.31"), 30, 1)
    return Source("bert", "bert.onnx", "5" * 64, 90_000_000, timings={"cpu": timing})


def code(found: Diff, strict: bool = False) -> int:
    """The exit code of a comparison."""
    try:
        check(found.findings, strict)
    except SlimError as error:
        return error.exit_code
    return 0


def around(value: float, half: float) -> Interval:
    return Interval(value, value - half, value + half)


# what is a change


def test_the_interval_of_a_difference_covers_it():
    """Of two proportions from their own Wilson intervals: the true difference lies inside 93 to 99 of 100 times."""
    rng = np.random.default_rng(3)
    p, q, trials = 0.95, 0.9, 2000
    inside = 0
    for first, second in zip(rng.binomial(300, p, trials), rng.binomial(300, q, trials), strict=True):
        found = difference(wilson(int(first), 300), wilson(int(second), 300))
        inside += found.low <= 100 * (q - p) <= found.high
    assert 0.93 < inside / trials < 0.99


def test_a_difference_is_not_symmetric():
    """The ends that face each other count: new.low with old.high, new.high with old.low."""
    found = difference(Interval(1, 0, 5), Interval(11, 8, 11))
    assert (found.value, found.low, found.high) == pytest.approx((10, 10 - 5, 10 + 1))


@pytest.mark.parametrize(
    ("old", "new", "way"),
    [
        (around(0.2, 0.6), around(0.2, 0.6), "same"),
        (around(0.2, 0.6), around(0.9, 0.6), "same"),
        (around(0.2, 0.6), around(3.0, 0.6), "worse"),
        (around(3.0, 0.6), around(0.2, 0.6), "better"),
    ],
)
def test_a_drop_is_worse_only_beyond_what_the_intervals_explain(old, new, way):
    found = compared(row(drop=old), row(drop=new))
    (change,) = (change for change in found.jobs[0].changes if change.aspect == "metric")
    assert (change.way, found.jobs[0].state) == (way, way)
    assert change.loss.value == pytest.approx(new.value - old.value)


def test_equal_runs_differ_in_nothing():
    timed = row(speedup=around(3.0, 0.5), drop=around(0.5, 5.0), placement=Placement("p", 7, 7, 1))
    found = compared(timed, timed)
    assert {change.aspect for change in found.jobs[0].changes} == {
        *("metric", "agreement", "speed-up", "nodes", "pieces", "size")
    }
    assert {change.loss for change in found.jobs[0].changes} == {POINT}
    assert found.summary == "1 job: 1 same"
    assert code(found, strict=True) == 0


def test_a_slowdown_is_of_time():
    found = compared(row(speedup=around(4.0, 0.01)), row(speedup=around(2.0, 0.01)))
    (change,) = (change for change in found.jobs[0].changes if change.aspect == "speed-up")
    assert change.loss.value == pytest.approx(100)
    assert 98 < change.loss.low < 100 < change.loss.high < 102
    back = compared(row(speedup=around(2.0, 0.01)), row(speedup=around(4.0, 0.01))).jobs[0].changes
    assert next(change for change in back if change.aspect == "speed-up").loss.value == pytest.approx(-50)


def test_embeddings_are_compared_by_their_cosine():
    def seen(cosine: float) -> Comparison:
        return replace(comparison(None), kind="embedding", fidelity=Fidelity(9, 0.1, 0.2, cosine=cosine))

    found = compared(row(seen=seen(0.99)), row(seen=seen(0.95)))
    (change,) = (change for change in found.jobs[0].changes if change.aspect == "agreement")
    assert (change.way, change.loss.value) == ("worse", pytest.approx(4))
    assert code(found) == 3


def test_numbers_that_are_none_are_not_compared():
    nan = Interval(float("nan"), float("nan"), float("nan"))
    found = compared(row(drop=nan, speedup=around(2, 0.1)), row(drop=nan, speedup=nan))
    assert {change.aspect for change in found.jobs[0].changes} == {"agreement", "size"}


# what fails, and how


@pytest.mark.parametrize(
    ("old", "new", "expected", "strict"),
    [
        (row(drop=around(0, 0.3)), row(drop=around(2, 0.3)), 3, 3),
        (row(drop=around(0, 0.9)), row(drop=around(0.8, 0.9)), 0, 3),
        (row(drop=around(0, 0.05)), row(drop=around(0.3, 0.05)), 0, 0),
        (row(agreement=99.5), row(agreement=95), 3, 3),
        (row(agreement=95), row(agreement=99.5), 0, 0),
        (row(seen=comparison(POINT)), row(seen=comparison(POINT, broken=2)), 3, 3),
        (row(speedup=around(3, 0.1)), row(speedup=around(2, 0.1)), 4, 4),
        (row(speedup=around(3, 1)), row(speedup=around(2.5, 1)), 0, 4),
        (row(speedup=around(3, 0.1)), row(), 0, 4),
        (row(placement=Placement("p", 7, 7, 1)), row(placement=Placement("p", 6, 7, 1)), 5, 5),
        (row(placement=Placement("p", 7, 7, 1)), row(placement=Placement("p", 7, 7, 2)), 5, 5),
        (row(placement=Placement("p", 6, 7, 2)), row(placement=Placement("p", 7, 7, 1)), 0, 0),
        (row(placement=Placement("p", 7, 7, 1)), row(placement=Placement("p", 6, 7, 1, predicted=True)), 0, 5),
        (row(nbytes=23_000_000), row(nbytes=23_200_000), 0, 0),
        (row(nbytes=23_000_000), row(nbytes=24_000_000), 6, 6),
        (row(nbytes=24_000_000, drop=around(0, 0.1)), row(nbytes=90_000_000, drop=around(5, 0.1)), 3, 3),
        (row(seen=comparison(POINT)), row(seen=comparison(around(9, 1), rows="e" * 64)), 0, 3),
        (row(), failed(code=1), 1, 1),
        (row(), failed(code=2, status="failed"), 2, 2),
        (row(), row(exit_code=4, verdicts=(Verdict("min-speedup", "missed", "1x, wanted at least 2x"),)), 4, 4),
        (failed(), failed(), 0, 0),
        (OVER, failed(code=1), 1, 1),
        (OVER, replace(OVER, result=row(seen=comparison(POINT, broken=800)).result), 3, 3),
        (OVER, row(drop=around(9, 0.3)), 3, 3),
        (OVER, OVER, 0, 0),
        (failed(), row(), 0, 0),
        (None, failed(), 0, 0),
        (row(), None, 2, 2),
        (row(), row(status="waiting", result=None), 2, 2),
        (failed(), None, 0, 0),
    ],
)
def test_the_exit_code_says_what_was_lost(old, new, expected, strict):
    found = compared(old, new)
    assert (code(found), code(found, strict=True)) == (expected, strict)


@pytest.mark.parametrize(
    ("limits", "new"),
    [
        (Limits(max_drop=3), row(drop=around(2, 0.3))),
        (Limits(max_agreement_loss=9), row(drop=around(0, 0.3), agreement=95)),
        (Limits(max_growth=9), row(drop=around(0, 0.3), nbytes=24_000_000)),
        (Limits(max_slowdown=90), row(drop=around(0, 0.3), speedup=around(2, 0.1))),
        (Limits(allow_missing=True), None),
    ],
)
def test_a_limit_allows_what_fails_without_it(limits, new):
    old = row(drop=around(0, 0.3), speedup=around(3, 0.1))
    if new and not new.timed:
        old = replace(old, timed=None)
    assert code(compared(old, new)) > 0
    assert code(compared(old, new, limits)) == 0


def test_answers_that_are_no_numbers_are_worse():
    found = compared(row(seen=comparison(POINT)), row(seen=comparison(POINT, broken=2)))
    assert found.jobs[0].state == "worse"
    assert "NaN or infinite outputs on 2 of 872 rows, 0 before" in diff_summary(found)


@pytest.mark.parametrize(
    ("new", "state"),
    [
        (failed(code=1), "newly failing"),
        (row(drop=around(9, 0.3)), "worse"),
        (row(), "mended"),
    ],
)
def test_what_missed_a_budget_can_still_get_worse(new, state):
    """It made a model, and now makes none, or one that lost what the old one had."""
    assert compared(OVER, new).jobs[0].state == state


def test_a_model_of_another_name_is_known_by_its_content():
    """Its name grows by a folder when another model comes."""
    before, after = (replace(source_on("x"), name=name) for name in ("bert", "a-bert"))
    other = replace(source_on("x"), name="b-bert", sha256="6" * 64)
    old, new = row(drop=around(0, 0.3)), row("a-bert int8 cpu", drop=around(2, 0.3))
    found = diff(Run("zoo.toml", (before,), (old,)), Run("zoo.toml", (after, other), (new,)), Limits())
    assert [(job.name, job.state, job.notes) for job in found.jobs] == [
        ("a-bert int8 cpu", "worse", ("called bert before",))
    ]
    replaced = diff(Run("zoo.toml", (before,), (old,)), Run("zoo.toml", (other,), ()), Limits())
    assert [job.state for job in replaced.jobs] == ["missing"]


def test_what_an_interrupted_run_did_not_come_to_is_not_called_gone():
    found = compared(row(), row(status="waiting", result=None))
    assert found.findings[0].verdict.note == "not done yet: the new run was interrupted"
    assert compared(row(), None).findings[0].verdict.note == "not in the new run"


def test_times_of_another_workload_are_inconclusive():
    old, new = row(speedup=around(3, 0.1)), row(speedup=around(2, 0.1))
    new = replace(new, timed=replace(new.timed, latency=replace(new.timed.latency, length=32)))
    found = compared(old, new)
    assert (code(found), code(found, strict=True)) == (0, 4)
    assert "1 x 32 tokens, before on x, 1 thread, 1 x 128 tokens" in diff_summary(found)


def test_times_of_another_cpu_are_inconclusive():
    old, new = row(speedup=around(3, 0.1)), row(speedup=around(2, 0.1))
    found = compared(old, new, cpus=("with VNNI", "without"))
    assert (code(found), code(found, strict=True)) == (0, 4)
    assert "timed on without, 1 thread, 1 x 128 tokens, before on with VNNI, 1 thread" in diff_summary(found)


# what is told


def test_states_and_notes():
    names = ("same", "lost", "broke", "mended", "still", "grew", "shrank", "waits")
    old = {name: row(f"bert {name} cpu") for name in names}
    new = dict(old)
    new["lost"] = new["waits"] = row("bert waits cpu", status="waiting", result=None)
    new["broke"], old["mended"] = failed("bert broke cpu"), failed("bert mended cpu")
    old["still"] = new["still"] = failed("bert still cpu")
    new["grew"] = row("bert grew cpu", nbytes=99_000_000, text="quantize{mode=dynamic}", source="6" * 64)
    new["shrank"] = row("bert shrank cpu", nbytes=9_000_000)
    old["waits"] = row("bert waits cpu", status="waiting", result=None)
    new["extra"] = row("bert extra cpu")
    del new["lost"]
    found = diff(*(Run("z", (), tuple(rows.values())) for rows in (old, new)), Limits())
    assert {job.recipe: job.state for job in found.jobs} == {
        "same": "same",
        "lost": "missing",
        "broke": "newly failing",
        "mended": "mended",
        "still": "failing still",
        "grew": "worse",
        "shrank": "better",
        "extra": "new",
    }
    assert [job.state for job in found.jobs][:3] == ["newly failing", "missing", "worse"]
    assert found.summary == (
        "8 jobs: 1 newly failing, 1 missing, 1 worse, 1 failing still, 1 mended, 1 better, 1 new, 1 same"
    )
    notes = {job.recipe: job.notes for job in found.jobs}
    assert notes["grew"] == ("recipe changed from quantize", "source changed")
    assert notes["broke"] == ("out of luck",)
    with pytest.raises(SlimError, match="made on bert broke cpu missed: fails now, and did not: out of luck") as caught:
        check(found.findings)
    assert caught.value.exit_code == 1


# the command


def save(folder: Path, *rows: Row) -> Path:
    """A folder as `zoo run` leaves it."""
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps(report_json(Run("zoo.toml", (source_on("x"),), rows))))
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    """Of two jobs, one got worse."""
    old = save(tmp_path / "old", row(drop=around(0, 0.3)), row("a|b int8 cpu", speedup=around(3, 0.1)))
    new = save(tmp_path / "new", row(drop=around(4, 0.3)), row("a|b int8 cpu", speedup=around(3.1, 0.1)))
    return old, new


def test_the_command_tells_and_fails(runs):
    outcome = run("zoo", "diff", *runs)
    assert outcome.code == 3
    assert outcome.err == (
        "onnxslim: max-drop on bert int8 cpu missed: metric 0 -> 4, worse by 4 points (3.58 to 4.42), "
        "wanted at most 0.5 points\n"
    )
    assert "bert int8 cpu" in outcome.out
    assert "0.00 -> 4.00, worse" in outcome.out
    assert "a|b" not in outcome.out
    assert outcome.out.endswith("2 jobs: 1 worse, 1 same\n")
    assert run("zoo", "diff", *runs, "--max-drop", 5).code == 0
    assert run("zoo", "diff", runs[1], runs[0]).code == 0


def test_every_output_holds_the_same(runs, tmp_path):
    markdown, junit = tmp_path / "summary.md", tmp_path / "diff.xml"
    markdown.write_text("before\n")
    outcome = run("zoo", "diff", runs[0] / "run.json", runs[1], "--json", "--markdown", markdown, "--junit", junit)
    assert outcome.code == 3
    document = json.loads(outcome.out)
    assert document["schema"] == 1
    assert document["counts"] == {"worse": 1, "same": 1}
    assert [job["state"] for job in document["jobs"]] == ["worse", "same"]
    suite = ET.parse(junit).getroot()
    findings = [finding for job in document["jobs"] for finding in job["findings"]]
    assert (suite.get("tests"), suite.get("failures")) == (str(len(findings)), "1")
    text = markdown.read_text()
    assert text.startswith("before\n### ")
    assert "| bert int8 cpu | worse | 0.00 -\\> 4.00, worse |" in text
    assert_refused(run("zoo", "diff", *runs, "--junit", junit), "exists", "--force")
    assert_refused(run("zoo", "diff", *runs, "--force"), "--force does nothing without --junit")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("{", "is no JSON"),
        ("[]", "schema None, needed 1"),
        ('{"schema": 2}', "schema 2, needed 1"),
        ('{"schema": 1, "zoo": "z"}', "no run document"),
        ('{"schema": 1, "zoo": "z", "sources": [], "rows": [{"key": 1}]}', "no run document"),
    ],
)
def test_what_is_no_run_is_refused(runs, tmp_path, text, part):
    (tmp_path / "bad.json").write_text(text)
    assert_refused(run("zoo", "diff", runs[0], tmp_path / "bad.json"), "bad.json", part)


def test_a_folder_without_a_run_is_refused(runs, tmp_path):
    assert_refused(run("zoo", "diff", tmp_path, runs[0]), "run.json does not exist", "onnxslim zoo run")
