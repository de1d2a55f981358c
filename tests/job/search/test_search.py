"""The way to a target, in a world in which time, size and damage follow from the recipe alone."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_up import options

from onnxslim_bert.errors import AccuracyGateError, LatencyGateError, SizeGateError
from onnxslim_bert.job.search import search
from onnxslim_bert.job.search.alternatives import Alternative, MeasuredOptions
from onnxslim_bert.job.search.combination import Combination
from onnxslim_bert.job.search.costs import Saving, TimingConditions
from onnxslim_bert.job.search.search_folder import SearchFolder
from onnxslim_bert.job.search.targets import Targets
from onnxslim_bert.passes.distill import Distill
from onnxslim_bert.passes.prune import Prune
from onnxslim_bert.passes.quantize_static import QuantizeStatic
from onnxslim_bert.proof.class_losses import ClassLoss
from onnxslim_bert.recipes.recipe import Recipe
from onnxslim_bert.targets.table import CPU

SOURCE = Path("source.onnx")
STATIC = QuantizeStatic()
FLOAT = Alternative(damage=0.05, ms=-1.2, nbytes=-900.0, floats=(1,))
HUGE = (Alternative(damage=0.9), FLOAT)  # what int8 does to layer 1
CHEAP = (Alternative(damage=0.06), FLOAT)


class Killed(BaseException):
    """What stops a process at once."""


class World:
    """Models are files that hold their recipe.

    slower: how much slower they are than the tables say. saturates: whether int8 sums do, on this machine.
    """

    saturates = False

    def __init__(self, slower: float = 1.0, precisions: Sequence[Alternative] = (Alternative(),)) -> None:
        self.options = options(3, precisions=precisions)
        self.slower = slower
        self.done: list[str] = []  # what was measured, built and judged
        self.shown: list[tuple[str, int, int]] = []

    def note(self, what: str, result):
        self.done.append(what)
        return result

    def removed(self, recipe: str) -> list[tuple]:
        """For each site what was measured of it, and the units that are gone."""
        prune = next(step.action for step in Recipe.parse(recipe).steps if isinstance(step.action, Prune))
        counts = [*prune.heads, *prune.neurons]
        return [(one, one.site.units - n) for one, n in zip(self.options.sensitivities, counts, strict=True)]

    def precision(self, recipe: str) -> Alternative:
        """That of the layers that `recipe` leaves in float32."""
        int8 = next((s.action for s in Recipe.parse(recipe).steps if isinstance(s.action, QuantizeStatic)), STATIC)
        return next(one for one in self.options.precisions if one.floats == int8.float_layers)

    def saved(self, recipe: str) -> Saving:
        """Narrowing a float layer saves in proportion to what it costs, as the tables have it."""
        gone, precision = self.removed(recipe), self.precision(recipe)
        taken = Combination(Alternative(), Alternative(), Alternative(), precision)
        savings = taken.savings([one.site for one, _ in gone], self.options.costs)
        ms, nbytes = (
            sum(getattr(one, of) * n for one, (_, n) in zip(savings, gone, strict=True)) for of in ("ms", "nbytes")
        )
        return Saving(precision.ms + ms, precision.nbytes + nbytes)

    def ms(self, recipe: str) -> float:
        return self.slower * (self.options.costs.full_ms - self.saved(recipe).ms)

    def nbytes(self, recipe: str) -> int:
        return round(self.options.costs.full_bytes - self.saved(recipe).nbytes)

    def damage(self, recipe: str) -> float:
        """A training halves it; one on all texts leaves a quarter."""
        squares = [one.squared([one.site.units - n])[0] for one, n in self.removed(recipe)]
        left = {(): 1.0, (256,): 0.5, (2000,): 0.25}[self.texts(recipe)]
        return left * float(np.sqrt(sum(squares) + self.precision(recipe).damage ** 2))

    def texts(self, recipe: str) -> tuple[int, ...]:
        """On how many texts its model is trained."""
        return tuple(step.action.texts for step in Recipe.parse(recipe).steps if isinstance(step.action, Distill))


class FakeModel:
    """Does nothing but remember its recipe."""

    recipe = ""

    def clone(self):
        return FakeModel()

    def save(self, path: Path, *, overwrite: bool) -> None:
        assert overwrite
        path.write_text(self.recipe)


@pytest.fixture
def world(monkeypatch):
    return enter(World(), monkeypatch)


def enter(world: World, monkeypatch) -> World:
    def run_recipe(model, recipe, *_):
        model.recipe = str(recipe)
        if model.recipe != search.FUSED:
            world.done.append(f"built {model.recipe}")

    def time_models(paths, _):
        return [
            world.options.costs.source_ms if path == (SOURCE, CPU) else world.ms(path.read_text()) for path in paths
        ]

    found: MeasuredOptions = world.options
    fakes = {
        "measure_sensitivities": lambda *_: world.note("widths", found.sensitivities),
        "measure_costs": lambda *_: world.note("costs", found.costs),
        "measure_alternatives": lambda *given: world.note(given[-1], found.layers),
        "choose_int8_method": lambda *_: world.note("method", "mse"),
        "measure_precisions": lambda *_: world.note("precisions", found.precisions),
        "measure_bits": lambda *_, **__: world.note("bits", found.matrices),
        **{
            name: lambda _: []
            for name in ("layer_steps", "more_layer_steps", "stream_steps", "embedding_steps", "token_steps")
        },
        "run_recipe": run_recipe,
        "check_weights_stay_int8": lambda _: None,
        "u8s8_saturates": lambda: world.saturates,
        "fixed_shape": lambda _: (None, None),
        "spliced_trials": lambda trials, _: trials,
        "reporting": lambda trials, _: trials,
        "size_of": lambda path, _: world.nbytes(path.read_text()),
        "time_models": time_models,
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(search, name, fake)
    return world


def searcher(world: World, folder: Path) -> search.Search:
    """A search in `world`; a model loses ten points for a damage of one."""

    class Trials:
        def damage(self, model):
            return world.damage(model.recipe)

        def progress(self, *shown):
            world.shown.append(shown)

    def judge(path: Path) -> float:
        return world.note(f"judged {path.read_text()}", 10 * world.damage(path.read_text()))

    def losses(path: Path) -> tuple[ClassLoss, ...]:
        return (ClassLoss(path.read_text(), 2, 1, 0, 0.5, 0.25),)

    state = SearchFolder(folder, "key")
    return search.Search(SOURCE, FakeModel(), Trials(), judge, TimingConditions(), state, "made-up rows", losses)


@pytest.mark.parametrize(
    "targets",
    [
        Targets(speedup=5.0),
        Targets(nbytes=7500.0),
        Targets(5.0, 8000.0),
        Targets(5.0, drop=15.0),
        Targets(drop=5.0),
        Targets(drop=0.0),
    ],
    ids=str,
)
def test_a_target_is_reached(world, targets, tmp_path):
    """With measurements that the tables foretold; the way there begins at the model with nothing removed."""
    found = searcher(world, tmp_path / "small.search").run(targets)
    chosen = found.chosen
    assert targets.met_by(chosen.speedup, chosen.nbytes, chosen.drop)
    assert found.source_ms == pytest.approx(40.0)
    assert chosen in found.frontier
    whole = found.frontier[0]
    assert "heads=4/4/4,neurons=96/96/96}" in whole.recipe
    assert (whole.speedup, whole.nbytes, whole.damage) == (pytest.approx(4.0), 10_000, 0.0)
    for point in found.frontier:
        assert point.predicted == pytest.approx(point.damage)
        assert point.file.read_text() == point.recipe
    assert [point.speedup for point in found.frontier] == sorted(point.speedup for point in found.frontier)


@pytest.mark.parametrize("saturates", [False, True])
def test_sums_that_saturate_here_get_weights_that_fit(world, saturates, tmp_path):
    """In every model that is built and in the one that is chosen."""
    world.saturates = saturates
    chosen = searcher(world, tmp_path / "small.search").run(Targets(speedup=5.0)).chosen
    built = [one for one in world.done if one.startswith("built")]
    assert built
    assert all(("reduce-range=true" in recipe) == saturates for recipe in [*built, chosen.recipe])


def test_a_drop_alone_takes_the_fastest_within_it(world, tmp_path):
    """Faster ones lose too much."""
    found = searcher(world, tmp_path / "small.search").run(Targets(drop=5.0))
    assert 0 < found.chosen.drop <= 5.0
    for point in found.frontier:
        assert point.speedup <= found.chosen.speedup or point.drop > 5.0


def test_what_the_tables_missed_is_aimed_at_again(monkeypatch, tmp_path):
    """Every model is 3 % slower than foretold."""
    found = searcher(enter(World(slower=1.03), monkeypatch), tmp_path / "small.search").run(Targets(speedup=5.0))
    assert found.chosen.speedup >= 5.0
    assert max(p.speedup for p in found.frontier if p != found.chosen) < 5.0


@pytest.mark.parametrize(
    ("targets", "error", "said"),
    [
        (Targets(speedup=50.0), LatencyGateError, r"--target-speedup 50 was not reached: the fastest is (\S+)x at"),
        (Targets(nbytes=10.0), SizeGateError, r"--target-size 1e-05MB was not reached: the smallest is (\S+)x at"),
        (Targets(50.0, 10.0), LatencyGateError, r"--target-speedup 50 was not reached: the fastest is (\S+)x at"),
    ],
    ids=str,
)
def test_a_target_out_of_reach_says_how_far_it_came(world, targets, error, said, tmp_path):
    """Which is as far as there is a plan: everything at its narrowest."""
    with pytest.raises(error) as caught:
        searcher(world, tmp_path / "small.search").run(targets)
    reached = re.match(said, str(caught.value))
    assert reached is not None
    narrowest = 40.0 / world.ms("prune{heads=1/1/1,neurons=32/32/32}")
    assert float(reached[1]) == pytest.approx(narrowest, rel=0.01)


def test_a_drop_that_the_speed_does_not_allow_says_what_it_allows(world, tmp_path):
    with pytest.raises(AccuracyGateError) as caught:
        searcher(world, tmp_path / "small.search").run(Targets(speedup=5.0, drop=0.5))
    assert str(caught.value).startswith("--max-drop 0.5 does not hold at the targets: the fastest within it is 4.")


def test_the_labels_that_are_lost_are_those_of_the_chosen_model_or_else_of_the_nearest(world, tmp_path):
    """The nearest is the one of least damage that is fast enough."""
    found = searcher(world, tmp_path / "small.search").run(Targets(speedup=5.0))
    assert [one.label for one in found.losses] == [found.chosen.recipe]
    with pytest.raises(AccuracyGateError) as caught:
        searcher(world, tmp_path / "small.search").run(Targets(5.0, drop=0.5))
    told = next(number for number, line in enumerate(caught.value.found) if line.startswith("lost and gained on"))
    assert "made-up rows, by the nearest" in caught.value.found[told]
    assert caught.value.found[told + 2].startswith(found.chosen.recipe)


@pytest.mark.parametrize(
    ("precisions", "floats"), [(HUGE, "float-layers=1"), (CHEAP, "")], ids=["much damage", "little damage"]
)
@pytest.mark.parametrize("targets", [Targets(speedup=4.5), Targets(nbytes=9000.0), Targets(4.2, 9500.0)], ids=str)
def test_a_layer_stays_float_where_int8_damages_it_much(monkeypatch, targets, precisions, floats, tmp_path):
    """Then others are narrowed instead; what int8 does is part of every prediction."""
    found = searcher(enter(World(precisions=precisions), monkeypatch), tmp_path / "small.search").run(targets)
    assert targets.met_by(found.chosen.speedup, found.chosen.nbytes, 0.0)
    assert re.findall(r"float-layers=[\d/]*", found.chosen.recipe) == [floats] * bool(floats)
    whole = next(p for p in found.frontier if p.damage == pytest.approx(precisions[0].damage))
    assert (whole.speedup, whole.nbytes) == (pytest.approx(4.0), 10_000)
    for point in found.frontier:
        assert point.predicted == pytest.approx(point.damage)
    assert tuple(found.tables["precisions"]) == precisions


def test_a_drop_that_int8_alone_exceeds_is_met_in_float(monkeypatch, tmp_path):
    """Nine points are lost by int8, half a point with a layer in float32: slower than int8, but within the drop."""
    more = Alternative(damage=0.04, ms=-3.0, nbytes=-2000.0, floats=(0, 1))
    world = enter(World(precisions=[*HUGE, more]), monkeypatch)
    found = searcher(world, tmp_path / "small.search").run(Targets(drop=1.0))
    assert "float-layers=1}" in found.chosen.recipe
    assert found.chosen.drop <= 1.0
    assert found.chosen.speedup < 4.0


def test_time_that_a_target_leaves_is_spent_on_less_damage(monkeypatch, tmp_path):
    """int8 would be four times as fast; three times is asked for."""
    world = enter(World(precisions=CHEAP), monkeypatch)
    found = searcher(world, tmp_path / "small.search").run(Targets(speedup=3.0))
    assert "float-layers=1}" in found.chosen.recipe
    assert "heads=4/4/4,neurons=96/96/96}" in found.chosen.recipe


@pytest.mark.parametrize("before", [True, False], ids=["before writing", "after writing"])
@pytest.mark.parametrize("targets", [Targets(5.0, 8000.0), Targets(drop=5.0)], ids=str)
def test_a_search_that_is_killed_again_and_again_goes_on(monkeypatch, targets, before, tmp_path):
    """At every writing of its state in turn. What was written is not done again, and the end is the same."""
    expected = searcher(calm := enter(World(precisions=HUGE), monkeypatch), tmp_path / "calm.search").run(targets)
    world, folder, lives = enter(World(precisions=HUGE), monkeypatch), tmp_path / "small.search", 0
    write = SearchFolder._write
    found = None
    while found is None:
        lives += 1
        writes = 0

        def dying(state):
            nonlocal writes
            writes += 1
            dies = writes == (3 if before else 2)  # the first one opens the state
            if dies and before:
                raise Killed
            write(state)
            if dies:
                raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(SearchFolder, "_write", dying)
            try:
                found = searcher(world, folder).run(targets)
            except Killed:
                continue
    assert [replace(point, file=SOURCE) for point in found.frontier] == [
        replace(point, file=SOURCE) for point in expected.frontier
    ]
    assert found.chosen.recipe == expected.chosen.recipe
    assert lives > len(calm.done) / 2
    if before:  # what was under way is lost, and only that
        assert set(world.done) == set(calm.done)
        assert len(world.done) <= len(calm.done) + lives
    else:
        assert sorted(world.done) == sorted(calm.done)


def test_a_second_target_measures_nothing_again(world, tmp_path):
    """Tables and models are those of the first."""
    folder = tmp_path / "small.search"
    searcher(world, folder).run(Targets(speedup=5.0))
    before = len(world.done)
    searcher(world, folder).run(Targets(speedup=5.0))
    assert len(world.done) == before
    searcher(world, folder).run(Targets(speedup=4.5))
    assert all(what.startswith(("built", "judged")) for what in world.done[before:])


def test_a_search_that_goes_on_does_not_depend_on_how_busy_the_machine_is_by_then(world, tmp_path):
    """Models are timed once, so that it aims where it did."""
    folder = tmp_path / "small.search"
    first = searcher(world, folder).run(Targets(5.0, 8000.0), 2000)
    before, world.slower = len(world.done), 1.1
    again = searcher(world, folder).run(Targets(5.0, 8000.0), 2000)
    assert (again.frontier, again.refitted, again.chosen) == (first.frontier, first.refitted, first.chosen)
    assert len(world.done) == before


@pytest.mark.parametrize("targets", [Targets(5.0, 8000.0), Targets(drop=5.0)], ids=str)
def test_no_stage_goes_backwards(world, targets, tmp_path):
    """Nor does its end move."""
    searcher(world, tmp_path / "small.search").run(targets)
    for stage in {shown[0] for shown in world.shown}:
        done = [shown[1] for shown in world.shown if shown[0] == stage]
        assert done == sorted(set(done))
        assert len({shown[2] for shown in world.shown if shown[0] == stage}) == 1
    assert "building models" in {shown[0] for shown in world.shown}


@pytest.mark.parametrize("slower", [1.0, 1.03], ids=["as foretold", "slower than foretold"])
def test_a_plan_is_distilled_for_a_short_time_and_then_on_all_texts(monkeypatch, slower, tmp_path):
    """At a drop that refits do not hold; the frontier without it is that of a search that distils nothing."""
    world = enter(World(slower), monkeypatch)
    refitted = searcher(world, tmp_path / "plain.search").run(Targets(speedup=5.0))
    drop = 0.5 * refitted.chosen.drop
    with pytest.raises(AccuracyGateError):
        searcher(world, tmp_path / "plain.search").run(Targets(5.0, drop=drop))
    found = searcher(world, tmp_path / "small.search").run(Targets(5.0, drop=drop), 2000)
    assert world.texts(found.chosen.recipe) == (2000,)
    assert found.chosen.speedup >= 5.0
    assert found.chosen.drop <= drop
    assert [point.recipe for point in found.refitted] == [point.recipe for point in refitted.frontier]
    short = [what for what in world.done if what.startswith("built") and "distill{texts=256}" in what]
    assert found.chosen.recipe.replace("2000,epochs=3.0", "256") == short[-1].removeprefix("built ")


def test_a_search_that_distils_goes_on_where_it_was_killed(world, tmp_path, monkeypatch):
    """Models that were trained are not trained again."""
    targets, folder = Targets(speedup=5.0), tmp_path / "small.search"
    keep = SearchFolder.keep_candidate

    def dying(state, candidate):
        keep(state, candidate)
        if "distill{texts=256}" in candidate.recipe:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(SearchFolder, "keep_candidate", dying)
        with pytest.raises(Killed):
            searcher(world, folder).run(targets, 2000)
    searcher(world, folder).run(targets, 2000)
    built = [what for what in world.done if what.startswith("built")]
    assert len(built) == len({*built})
    assert sum("distill{texts=2000" in what for what in built) == 1


def test_nothing_is_distilled_where_no_plan_reaches_the_targets(world, tmp_path):
    with pytest.raises(LatencyGateError):
        searcher(world, tmp_path / "small.search").run(Targets(speedup=50.0), 2000)
    assert not any("distill" in what for what in world.done)
