"""Plans that keep the same share of every layer, on small tables."""

from dataclasses import replace

import pytest
from made_up import HEADS, NEURONS, options

from onnxslim_bert.job.search.alternatives import Alternative
from onnxslim_bert.job.search.even_plans import even_plan
from onnxslim_bert.job.search.width_choices import CostBudget

COUNT = 3
LAYERS = tuple(
    Alternative(f"drop-layers{{layers={gone}}}" if gone else "", damage, ms, nbytes, tuple(map(int, gone)))
    for gone, damage, ms, nbytes in (("", 0.0, 0.0, 0.0), ("1", 0.2, 2.0, 1500.0), ("12", 0.9, 4.0, 3000.0))
)
TABLES = Alternative(), Alternative("quantize-embedding{bits=4}", 0.02, 0.0, 2000.0)
SHARES = [(1, 32), (2, 32), (2, 64), (3, 64), (4, 96)]  # of 4 heads and 96 neurons: up to 1/4, 1/2, 2/3, 3/4 and 1
BUDGETS = [CostBudget(7.0), CostBudget(None, 7000.0), CostBudget(7.5, 5500.0), CostBudget(20.0, 20_000.0)]


def spent(found, heads, neurons, layers, table):
    """Milliseconds and bytes of an even plan, by adding up."""
    left = [one for one in found.sensitivities if not {*one.site.layers} <= {*layers.gone}]
    wide = {"heads": heads, "neurons": neurons}
    gone = [(found.costs.of(one.site), one.site.units - wide[one.site.kind]) for one in left]
    ms = found.costs.full_ms - layers.ms - table.ms - sum(saving.ms * units for saving, units in gone)
    return ms, found.costs.full_bytes - layers.nbytes - table.nbytes - sum(s.nbytes * units for s, units in gone)


@pytest.mark.parametrize("layers", LAYERS, ids=lambda one: one.step or "all")
@pytest.mark.parametrize("budget", BUDGETS, ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_the_largest_share_that_holds_time_and_size(seed, budget, layers):
    """With the table that does the least damage together with the widths that it leaves room for."""
    found = options(COUNT, seed, layers=[layers], embeddings=TABLES)
    plan = even_plan(found, budget)
    largest = {
        table.step: max((s for s in SHARES if budget.holds(*spent(found, *s, layers, table))), default=None)
        for table in TABLES
    }
    if plan is None:
        assert not any(largest.values())
        return
    kept = COUNT - len(layers.gone)
    assert (plan.plan.layers, len(plan.plan.heads), len(plan.plan.neurons)) == (layers.step, kept, kept)
    share = plan.plan.heads[0], plan.plan.neurons[0]
    assert (plan.plan.heads, plan.plan.neurons) == ((share[0],) * kept, (share[1],) * kept)
    assert share == largest[plan.plan.embedding]
    assert budget.holds(plan.ms, plan.nbytes)
    table = next(one for one in TABLES if one.step == plan.plan.embedding)
    assert (plan.ms, plan.nbytes) == pytest.approx(spent(found, *share, layers, table))
    others = [even_plan(replace(found, embeddings=[one]), budget) for one in TABLES]
    assert plan.damage == min(other.damage for other in others if other is not None)


def test_whatever_a_refit_would_like_better_stays_away():
    """Tokens that are dropped, a narrower stream, layers in float32: none is part of it."""
    found = options(
        COUNT,
        tokens=[Alternative(), Alternative("drop-tokens{keep=0.5,after=0}", 0.0, 3.0, after=0, keep=0.5)],
        streams=[Alternative(), Alternative("prune-hidden{width=64}", 0.0, 3.0, 3000.0, stream=0.5)],
        precisions=[Alternative(damage=0.05), Alternative(damage=0.01, ms=-1.2, floats=(1,))],
    )
    for budget in BUDGETS:
        plan = even_plan(found, budget)
        assert plan is not None
        assert (plan.plan.tokens, plan.plan.stream, plan.plan.float_layers, plan.plan.weights) == ("", "", (), "")


def test_nothing_is_removed_where_everything_fits_and_there_is_none_where_nothing_does():
    found = options(COUNT)
    plan = even_plan(found, CostBudget(10.0, 10_000.0))
    assert plan is not None
    assert (plan.plan.heads, plan.plan.neurons) == ((HEADS,) * COUNT, (NEURONS,) * COUNT)
    assert even_plan(found, CostBudget(0.001)) is None
