"""What is chosen holds its budget, is nearly the best there is, and saves nothing twice."""

import functools
import itertools
from dataclasses import replace

import numpy as np
import pytest
from made_up import options

from onnxslim_bert.arrays import Array
from onnxslim_bert.job.search.alternatives import Alternative, MeasuredOptions
from onnxslim_bert.job.search.bound import least_damage
from onnxslim_bert.job.search.choose import choose, reachable, whole
from onnxslim_bert.job.search.costs import Costs, Saving
from onnxslim_bert.job.search.matrix_bits import MatrixBits
from onnxslim_bert.job.search.search_plan import SearchPlan
from onnxslim_bert.job.search.width_choices import CostBudget, width_choices
from onnxslim_bert.passes.pack_weights import PackWeights
from onnxslim_bert.rewriting.pruning.sensitivity import Sensitivity
from onnxslim_bert.rewriting.pruning.sites import Site


def every_plan(found: MeasuredOptions) -> tuple[Array, Array, Array]:
    """Squared damage, milliseconds and bytes of every combination of widths, an axis for each site.

    By the definition: what the whole model takes less what each unit saves.
    """
    squares, ms, nbytes = [], [], []
    for one in found.sensitivities:
        counts, saving = np.array(list(one.damage)), found.costs.of(one.site)
        squares.append(np.square(list(one.damage.values())))
        ms.append(-saving.ms * (one.site.units - counts))
        nbytes.append(-saving.nbytes * (one.site.units - counts))
    sums = [functools.reduce(np.add.outer, parts) for parts in (squares, ms, nbytes)]
    return sums[0], found.costs.full_ms + sums[1], found.costs.full_bytes + sums[2]


def index_of(found: MeasuredOptions, plan: SearchPlan) -> tuple[int, ...]:
    """Where `every_plan` holds `plan`."""
    counts = plan.heads + plan.neurons
    return tuple(list(one.damage).index(count) for one, count in zip(found.sensitivities, counts, strict=True))


@pytest.mark.parametrize("nbytes", [None, 9000, 8000, 6500])
@pytest.mark.parametrize("ms", [None, 9.0, 8.0, 6.5])
def test_no_choice_is_much_better(ms, nbytes):
    """Within the budget, and near the best of all 1,728 combinations of widths; None only when there is none."""
    excess = []
    for seed in range(20):
        found, budget = options(3, seed), CostBudget(ms, nbytes)
        squares, all_ms, all_bytes = every_plan(found)
        within = (all_ms <= (ms or np.inf)) & (all_bytes <= (nbytes or np.inf))
        chosen = choose(found, budget)
        assert (chosen is not None) == reachable(found, budget) == within.any()
        if chosen is not None:
            place = index_of(found, chosen.plan)
            assert within[place]
            assert (chosen.ms, chosen.nbytes) == pytest.approx((all_ms[place], all_bytes[place]))
            assert chosen.damage == pytest.approx(np.sqrt(squares[place]))
            (table,) = width_choices(found)
            assert least_damage(table, budget) <= np.sqrt(squares[within].min()) + 1e-9
            excess.append(chosen.damage - np.sqrt(squares[within].min()))
    assert max(excess) < 0.05  # where the damages themselves are about 1
    assert np.mean(excess) < 0.005


def test_nothing_is_removed_when_everything_fits():
    """Not even what the tables take for free, and however the costs round."""
    for seed in range(5):
        found = options(seed=seed, embeddings=[Alternative(), Alternative("free", ms=1.0, nbytes=10.0)])
        for budget in (CostBudget(), CostBudget(10.0), CostBudget(10.0, 10_000)):
            chosen = choose(found, budget)
            assert chosen is not None
            assert (chosen.plan, chosen.damage) == (SearchPlan((4, 4), (96, 96)), 0.0)
            assert (chosen.ms, chosen.nbytes) == (10.0, 10_000)


@pytest.mark.parametrize("budget", [CostBudget(ms=1.0), CostBudget(nbytes=100.0), CostBudget(9.0, 100.0)], ids=str)
def test_a_budget_out_of_reach_has_no_plan(budget):
    assert not reachable(options(), budget)
    assert choose(options(), budget) is None


def test_a_step_is_taken_where_it_does_less_than_narrowing():
    """And only then; squares of damages add up."""
    step = Alternative("factorize-embedding{rank=8}", damage=0.3, nbytes=1000.0)
    found, budget = options(embeddings=[Alternative(), step]), CostBudget(nbytes=8500.0)
    with_step, without = choose(found, budget), choose(options(), budget)
    assert with_step is not None
    assert without is not None
    assert with_step.plan.embedding == step.step
    rest = choose(options(), CostBudget(nbytes=9500.0))
    assert rest is not None
    assert with_step.damage == pytest.approx(np.hypot(rest.damage, 0.3))
    assert with_step.damage < without.damage
    chosen = choose(options(embeddings=[Alternative(), replace(step, damage=9.0)]), budget)
    assert chosen is not None
    assert chosen == without


FLAT = {4: 0.0, 3: 1.0, 2: 2.0, 1: 3.0}  # a head's worth of damage each


def encoder(count: int, shared: bool = False, **alternatives) -> MeasuredOptions:
    """Heads alone: each of the 4 of a layer takes 1 ms and 100 bytes, those of shared layers are stored once."""
    sites = [Site("heads", tuple(range(count)), 4, 8)] if shared else [Site("heads", (i,), 4, 8) for i in range(count)]
    savings = {f"heads {i}": Saving(1.0 * (count if shared else 1), 100.0) for i in range(count)}
    found = [Sensitivity(site, np.arange(4), FLAT) for site in sites]
    return MeasuredOptions(found, Costs(100.0, 50.0, 5000, savings), **alternatives)


def only(ms: float, found: MeasuredOptions):
    """The plan for `ms` milliseconds."""
    chosen = choose(found, CostBudget(ms=ms))
    assert chosen is not None
    return chosen


def test_a_layer_that_is_gone_is_not_narrowed_too():
    """It saves what it was measured to save; its heads are in no plan."""
    gone = Alternative("drop-layers", damage=1.0, ms=6.0, nbytes=600.0, gone=(1,))
    chosen = only(43.01, encoder(3, layers=[gone]))
    assert chosen.plan.layers == gone.step
    assert len(chosen.plan.heads) == 2
    assert sum(chosen.plan.heads) == 7
    assert (chosen.ms, chosen.nbytes) == (pytest.approx(50 - 6 - 1), pytest.approx(5000 - 600 - 100))
    assert chosen.damage == pytest.approx(np.hypot(1.0, 1.0))


def test_shared_layers_are_narrowed_where_they_are_left():
    """Of three layers with one set of matrices one is gone: a head less saves two thirds of the time, and all bytes."""
    gone = Alternative("drop-layers", ms=6.0, gone=(1,))
    chosen = only(42.01, encoder(3, shared=True, layers=[gone]))
    assert chosen.plan.heads == (3,)
    assert (chosen.ms, chosen.nbytes) == (pytest.approx(50 - 6 - 2), pytest.approx(5000 - 100))


def test_narrowing_saves_less_where_tokens_were_dropped():
    """Heads of layers behind the drop see half of the tokens."""
    half = Alternative("drop-tokens{keep=0.5,after=0}", ms=9.0, after=0, keep=0.5)
    found = encoder(3, tokens=[half])
    assert only(41.0, found).ms == pytest.approx(50 - 9)
    least = only(50 - 9 - 3 - 0.5 * 3 - 0.5 * 3, found)
    assert least.plan.heads == (1, 1, 1)
    assert not reachable(found, CostBudget(ms=50 - 9 - 6 - 0.01))


def test_tokens_are_dropped_between_attention_and_feed_forward():
    """So the feed-forward of the layer itself sees fewer."""
    half = Alternative("drop-tokens{keep=0.5,after=0}", after=0, keep=0.5)
    neurons = [Site("neurons", (i,), 64, 1) for i in range(2)]
    found = [Sensitivity(site, np.arange(64), {64: 0.0, 32: 1.0}) for site in neurons]
    costs = Costs(100.0, 50.0, 5000, {f"neurons {i}": Saving(0.1, 1.0) for i in range(2)})
    assert only(50 - 2 * 0.5 * 3.2, MeasuredOptions(found, costs, tokens=[half])).plan.neurons == (32, 32)
    assert not reachable(MeasuredOptions(found, costs, tokens=[half]), CostBudget(ms=50 - 2 * 0.5 * 3.2 - 0.01))


def test_a_layer_behind_a_drop_of_tokens_saves_its_share():
    half = Alternative("drop-tokens{keep=0.5,after=0}", ms=9.0, after=0, keep=0.5)
    gone = Alternative("drop-layers", ms=6.0, gone=(3,))
    assert only(50 - 9 - 3, encoder(4, layers=[gone], tokens=[half])).ms == pytest.approx(50 - 9 - 3)


@pytest.mark.parametrize(("layers", "gone"), [(4, 0), (4, 1), (3, 2)])
def test_steps_that_do_not_go_together_are_not_combined(layers, gone):
    """A drop of tokens counts layers from the front, and is refused behind the last layer but one."""
    fewer = Alternative("drop-tokens{keep=0.5,after=1}", ms=9.0, after=1, keep=0.5)
    less = Alternative("drop-layers", ms=6.0, gone=(gone,))
    assert choose(encoder(layers, layers=[less], tokens=[fewer]), CostBudget(ms=49.0)) is None


def test_a_plan_without_sites_takes_steps_alone():
    costs = Costs(100.0, 50.0, 5000, {})
    step = Alternative("trim-vocabulary{tokens=9}", damage=0.1, nbytes=1000.0)
    chosen = choose(MeasuredOptions([], costs, embeddings=[Alternative(), step]), CostBudget(nbytes=4500.0))
    assert chosen is not None
    assert (chosen.plan, chosen.nbytes) == (SearchPlan((), (), embedding=step.step), 4000.0)


INT8 = Alternative(damage=0.9)
FLOAT = Alternative(damage=0.1, ms=-4.0, nbytes=-1200.0, floats=(1,))


def test_the_whole_model_is_predicted_with_the_damage_of_int8():
    """And so are plans that take nothing else."""
    found = options(precisions=[INT8])
    assert whole(found) == choose(found, CostBudget(10.0))
    assert whole(found).damage == 0.9
    less, alone = choose(found, CostBudget(9.0)), choose(options(), CostBudget(9.0))
    assert less is not None
    assert alone is not None
    assert less.plan == alone.plan
    assert less.damage == pytest.approx(np.hypot(0.9, alone.damage))


@pytest.mark.parametrize(("damage", "floats"), [(0.9, (1,)), (0.11, ())])
def test_a_layer_stays_float_where_its_int8_does_more_than_narrowing(damage, floats):
    """At the time and size of the whole int8 model, which then are found elsewhere."""
    found = encoder(8, precisions=[replace(INT8, damage=damage), FLOAT])
    flat = {4: 0.0, 3: 0.1, 2: 0.2, 1: 0.3}
    cheap = [replace(one, damage=flat) for one in found.sensitivities]
    chosen = only(50.0, replace(found, sensitivities=cheap))
    assert chosen.plan.float_layers == floats
    assert chosen.ms <= 50.0
    if floats:
        assert chosen.damage < damage
        assert sum(chosen.plan.heads) < 32


def test_more_than_int8_takes_is_spent_on_float_layers():
    """When a budget leaves it, and nothing is narrowed then."""
    chosen = only(54.01, encoder(3, precisions=[INT8, FLOAT]))
    assert (chosen.plan.heads, chosen.plan.float_layers) == ((4, 4, 4), (1,))
    assert (chosen.damage, chosen.ms, chosen.nbytes) == (pytest.approx(0.1), pytest.approx(54), pytest.approx(6200))


def test_a_narrow_float_layer_costs_its_share():
    """Twice the time of int8 and four times its bytes, for every head that is left."""
    found = encoder(2, precisions=[replace(FLOAT, damage=0.0)])
    assert only(54.0 - 3 * 2 - 3 * 1, found).nbytes == pytest.approx(6200 - 3 * 400 - 3 * 100)
    assert not reachable(found, CostBudget(ms=54.0 - 3 * 2 - 3 * 1 - 0.01))


def bits(site: str = "", layers: tuple[int, ...] = (), damage: float = 0.2, saved: float = 40.0) -> MatrixBits:
    """A matrix that saves `saved` bytes in 4 bits, and half as many more in 2 at five times the damage."""
    return MatrixBits(site, layers, {4: damage, 2: 5 * damage}, {4: saved, 2: 1.5 * saved})


def packed(found: MeasuredOptions, nbytes: float) -> tuple[int, ...]:
    """The bits of each matrix in the plan of so many bytes, give or take one; () where all stay whole."""
    chosen = choose(found, CostBudget(nbytes=nbytes + 1))
    assert chosen is not None
    assert chosen.nbytes <= nbytes + 1
    steps = [step.action for step in chosen.plan.recipe.steps if isinstance(step.action, PackWeights)]
    return steps[0].bits if steps else ()


def test_each_matrix_has_the_bits_that_do_least():
    """Those whose bytes cost the least damage first, whole ones where bytes are not short."""
    matrices = [bits("heads 0", damage=0.1), bits("heads 0", damage=0.01), bits("heads 1", damage=0.3), bits()]
    found = encoder(2, matrices=matrices)
    assert packed(found, 5000) == ()
    assert packed(found, 4960) == (8, 4, 8, 8)
    assert packed(found, 4940) == (8, 2, 8, 8)
    assert packed(found, 4900) == (4, 2, 8, 8)
    assert packed(found, 4860) == (4, 2, 8, 4)
    assert packed(found, 4820) == (4, 2, 4, 4)
    assert packed(encoder(2, matrices=[bits("heads 0"), bits("heads 1")]), 4920) == (4,)
    assert packed(encoder(2), 4600) == ()


def cost_of(matrices: list[MatrixBits], counts: tuple[int, ...], of: tuple[int, ...]) -> tuple[float, float]:
    """Squared damage and bytes of `encoder` with these heads, and matrices in these bits, by the definition."""
    squares = [FLAT[n] ** 2 for n in counts] + [one.damage.get(b, 0) ** 2 for one, b in zip(matrices, of, strict=True)]
    left = [*(n / 4 for n in counts), 1.0]  # of a site that is narrower
    saved = [one.nbytes.get(b, 0) * share for one, b, share in zip(matrices, of, left, strict=True)]
    return sum(squares), 5000 - sum(100 * (4 - n) for n in counts) - sum(saved)


def test_no_plan_with_bits_is_better():
    """Of all that two layers of heads and three matrices can become: 4 x 4 widths and 27 combinations of bits."""
    for seed in range(10):
        rng = np.random.default_rng(seed)
        matrices = [
            bits(site, damage=float(rng.uniform(0.1, 0.6)), saved=float(rng.uniform(20, 100)))
            for site in ("heads 0", "heads 1", "")
        ]
        every = [
            cost_of(matrices, counts, of)
            for counts in itertools.product((1, 2, 3, 4), repeat=2)
            for of in itertools.product((8, 4, 2), repeat=3)
        ]
        for nbytes in (4950.0, 4850.0, 4700.0):
            chosen = choose(encoder(2, matrices=matrices), CostBudget(nbytes=nbytes))
            assert chosen is not None
            assert chosen.nbytes <= nbytes
            assert any(np.allclose((chosen.damage**2, chosen.nbytes), one) for one in every)
            best = min(square for square, size in every if size <= nbytes - 1)  # sizes are rounded up to a bin
            assert chosen.damage <= np.sqrt(best) + 1e-9


def test_bits_are_those_of_the_matrices_that_are_left():
    """One of a dropped layer is gone, one of a layer in float32 is no int8 matrix, and neither saves anything."""
    matrices = [bits(f"heads {i}") for i in range(4)] + [bits("", (1,)), bits()]
    gone = Alternative("drop-layers{layers=1}", nbytes=600.0, gone=(1,))
    late = replace(FLOAT, floats=(2,), damage=0.0, nbytes=-100.0)
    found = encoder(4, layers=[gone], precisions=[late], matrices=matrices)
    whole = 5000 - 600 + 100
    assert packed(found, whole) == ()
    assert packed(found, whole - 3 * 40) == (4,)  # of layers 0 and 3, and the last
    assert sorted(packed(found, whole - 2 * 40)) == [4, 4, 8]


def test_fewer_units_take_their_share_of_bits():
    """Half of the heads in fewer bits save half of what all would."""
    chosen = choose(encoder(1, matrices=[bits("heads 0", damage=0.01)]), CostBudget(nbytes=5000 - 200 - 20))
    assert chosen is not None
    assert (chosen.plan.heads, chosen.plan.weights, chosen.nbytes) == ((2,), "pack-weights", 5000 - 200 - 20)


def test_float_layers_are_numbered_as_they_are_left():
    """Those that are gone are counted out, and none of them is float."""
    gone = Alternative("drop-layers{layers=2/0}", ms=8.0, gone=(2, 0))
    late = replace(FLOAT, floats=(1, 4))
    assert only(46.0, encoder(5, layers=[gone], precisions=[late])).plan.float_layers == (0, 2)
    assert choose(encoder(5, layers=[gone], precisions=[replace(late, floats=(0, 4))]), CostBudget(ms=49.0)) is None


def test_a_float_layer_behind_a_drop_of_tokens_costs_its_share():
    half = Alternative("drop-tokens{keep=0.5,after=0}", ms=9.0, after=0, keep=0.5)
    assert only(50 - 9 + 2.01, encoder(3, tokens=[half], precisions=[FLOAT])).ms == pytest.approx(50 - 9 + 2)
