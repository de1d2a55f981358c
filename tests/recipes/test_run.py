"""A recipe runs pass by pass: each gets the statistics that it wants, and says what it changed."""

import pickle
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from graphs import batches, fixture, prepared, trials

from onnxslim_bert.calibration.observers import Want
from onnxslim_bert.calibration.working import Working
from onnxslim_bert.errors import DataError, NoEncoderError, PassError
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.recipes.recipe import Recipe, Step
from onnxslim_bert.recipes.run import run_recipe, run_step
from onnxslim_bert.rewriting import trials as trials_module
from onnxslim_bert.rewriting.contract import Change, Context, Pass
from onnxslim_bert.rewriting.trials import Trials


@dataclass(frozen=True)
class Look(Pass):
    """Asks for the range of the first layer's input and reports it; changes nothing when `count` is 0."""

    name: ClassVar[str] = "look"
    count: int = 1

    def wants(self, model: Model) -> Iterable[Want]:
        return [Want(model.encoder.layers[0].query.source, "channel-range")]

    def apply(self, model: Model, ctx: Context) -> Change:
        (want,) = self.wants(model)
        low, high = ctx.stats[want]
        return Change(self.count, "it looked" if self.count else "nothing to see", {"span": float(np.max(high - low))})


@dataclass(frozen=True)
class LookOnly(Look):
    """A `Look` after which activations are what they were."""

    name: ClassVar[str] = "look-only"
    keeps_activations: ClassVar[bool] = True


@pytest.fixture
def model():
    return prepared("bert-ts17-sdpa", Canonicalize())


@pytest.fixture
def sweeps(monkeypatch):
    """How many statistics each sweep collected, and with how many threads, as it happens."""
    seen = []
    real = trials_module.collect

    def counting(model, wants, batches, report, **options):
        seen.append((len(wants), options["threads"]))
        return real(model, wants, batches, report, **options)

    monkeypatch.setattr(trials_module, "collect", counting)
    return seen


def test_every_step_leaves_a_record(model, sweeps):
    """What ran, what it changed, and what that took."""
    done = run_recipe(model, Recipe((Step(Look()), Step(LookOnly(count=0), optional=True))), trials(model))
    assert [(step.step, step.count, step.note) for step in done] == [
        ("look", 1, "it looked"),
        ("look-only{count=0}?", 0, "nothing to see"),
    ]
    assert done[0].details["span"] > 0
    assert all(step.seconds >= 0 for step in done)


def test_statistics_serve_until_a_pass_changes_activations(model, sweeps):
    steps = (Step(LookOnly()), Step(LookOnly()), Step(Look()), Step(LookOnly()))
    run_recipe(model, Recipe(steps), Trials(model.clone(), batches(model), batches(model), working=Working(threads=2)))
    assert sweeps == [(1, 2), (1, 2)]


def test_a_pass_that_wants_nothing_needs_no_data(model):
    done = run_recipe(model, Recipe.parse("fuse,first-token"))
    assert [bool(step.count) for step in done] == [True, True]


def test_a_pass_that_wants_statistics_needs_data(model):
    with pytest.raises(DataError, match="look needs calibration data; name some with --calib"):
        run_recipe(model, Recipe((Step(Look()),)))


def test_a_step_that_changes_nothing_is_an_error_unless_that_is_allowed(model):
    nothing = Look(count=0)
    with pytest.raises(
        PassError, match=r"look changed nothing: nothing to see \(--allow-noop accepts that\)"
    ) as raised:
        run_recipe(model, Recipe((Step(nothing),)), trials(model))
    assert not run_recipe(model, Recipe((Step(nothing),)), trials(model), allow_noop=True)[0].count
    assert not run_recipe(model, Recipe((Step(nothing, optional=True),)), trials(model))[0].count
    sent = pickle.loads(pickle.dumps(raised.value))  # as from a process of a zoo
    assert (sent.name, sent.reason, str(sent)) == ("look", "nothing to see", str(raised.value))


def test_a_pass_that_measures_needs_data_and_gets_trials(model):
    @dataclass(frozen=True)
    class Try(Look):
        measures: ClassVar[bool] = True

        def wants(self, model: Model) -> Iterable[Want]:
            return ()

        def apply(self, model: Model, ctx: Context) -> Change:
            return Change(1, f"damage {ctx.trials.damage(model):.1f}")

    with pytest.raises(DataError, match="look needs calibration data; name some with --calib"):
        run_recipe(model, Recipe((Step(Try()),)))
    assert run_recipe(model, Recipe((Step(Try()),)), trials(model))[0].note == "damage 0.0"


@dataclass(frozen=True)
class LookFurther(Look):
    """Asks for one statistic more than `Look`."""

    name: ClassVar[str] = "look-further"

    def wants(self, model: Model) -> Iterable[Want]:
        return [*super().wants(model), Want(model.encoder.layers[0].down.source, "minmax")]

    def apply(self, model: Model, ctx: Context) -> Change:
        return Change(len([ctx.stats[want] for want in self.wants(model)]), "it looked")


@pytest.mark.parametrize(
    ("steps", "swept"),
    [
        ((LookOnly(), LookOnly(), LookFurther()), [2]),
        ((LookOnly(), Look(), LookFurther()), [1, 2]),
        ((Look(), LookFurther()), [1, 2]),
    ],
    ids=["all in one sweep", "the one between changes activations", "the first does"],
)
def test_what_is_wanted_ahead_is_collected_in_one_sweep(model, sweeps, steps, swept):
    """Where the passes before keep activations, and only there."""
    done = run_recipe(model, Recipe(tuple(map(Step, steps))), trials(model))
    assert [count for count, _ in sweeps] == swept
    assert done[-1].count == 2


def test_progress_names_the_pass_that_calibrates(model):
    seen = []
    watched = Trials(
        model.clone(), batches(model), batches(model), working=Working(progress=lambda *now: seen.append(now))
    )
    run_step(model, Step(Look()), watched, {})
    assert seen == [("calibrating look", done, 3) for done in (1, 2, 3)]


@dataclass(frozen=True)
class Solve(Pass):
    """Solves for a matrix that has no inverse."""

    name: ClassVar[str] = "solve"

    def apply(self, model: Model, ctx: Context) -> Change:
        np.linalg.inv(np.zeros((3, 3)))
        return Change(1, "unreachable")


def test_a_matrix_that_cannot_be_solved_is_an_error_that_names_the_pass(model):
    with pytest.raises(PassError, match=r"solve: Singular matrix; .* degenerate matrix, leave solve out"):
        run_step(model, Step(Solve()), None, {})


def test_weights_that_are_not_finite_are_named_where_a_matrix_cannot_be_solved(model):
    weight = model.encoder.layers[1].up.weight
    broken = model.array(weight).copy()
    broken[0, :3] = np.nan, np.inf, np.nan
    model.replace(weight, broken)
    with pytest.raises(PassError, match=rf"solve: .*constant '{weight}' holds 3 values that are not finite"):
        run_step(model, Step(Solve()), None, {})


@pytest.mark.parametrize("name", ["bert-ts17-sdpa", "prenorm-ts17-eager"])
def test_heads_are_found_where_their_width_is_a_node_of_the_exporter(name):
    """The run compares answers with those from before."""
    (done,) = run_recipe(Model.load(fixture(name)), Recipe.parse("unpad"))
    assert done.count == 1


def test_what_needs_the_canonical_form_says_so():
    with pytest.raises(NoEncoderError, match=r"no dense query .*; run `canonicalize` before unpad$"):
        run_recipe(Model.load(fixture("albert-ts17-eager")), Recipe.parse("unpad"))
