"""A plan is a recipe that reads back."""

import pytest

from onnxslim_bert.job.search.search_plan import SearchPlan
from onnxslim_bert.recipes.recipe import Recipe

INT8 = "split-outliers?,smooth?,quantize-static,skip-mask?"


def test_every_step_has_its_place():
    """What is smaller comes before what is refitted, tokens go when the last layer computes one alone, int8 is last."""
    plan = SearchPlan(
        (4, 3), (96, 64), "prune-heads{even=true}", "factorize-embedding{rank=8}", "drop-tokens{after=0}", "mse"
    )
    assert str(plan.recipe) == (
        "canonicalize?,fuse?,factorize-embedding{rank=8},prune-heads{even=true},prune{heads=4/3,neurons=96/64}?,"
        "first-token?,drop-tokens{after=0},split-outliers?,smooth?,quantize-static{method=mse},skip-mask?"
    )


def test_bits_of_the_word_table_come_with_int8():
    """Behind what works on a table in float: pruning, dropping layers, training."""
    step = "trim-vocabulary{tokens=9},quantize-embedding{bits=3}"
    plan = SearchPlan((4,), (96,), "", step, method="mse", distill="distill{texts=9}")
    assert str(plan.recipe) == (
        "canonicalize?,fuse?,trim-vocabulary{tokens=9},prune{heads=4,neurons=96}?,first-token?,distill{texts=9},"
        "quantize-embedding{bits=3},split-outliers?,smooth?,quantize-static{method=mse},skip-mask?"
    )


def test_the_stream_becomes_narrower_behind_what_is_pruned_and_before_what_is_trained():
    plan = SearchPlan((4,), (96,), "drop-layers", stream="prune-hidden{width=64}", distill="distill{texts=9}")
    assert str(plan.recipe) == (
        "canonicalize?,fuse?,drop-layers,prune{heads=4,neurons=96}?,prune-hidden{width=64},first-token?,"
        f"distill{{texts=9}},{INT8}"
    )


@pytest.mark.parametrize(
    ("plan", "pruned"),
    [
        (SearchPlan((4, 3), (96, 64)), "prune{heads=4/3,neurons=96/64}?"),
        (SearchPlan((4, 3), ()), "prune{heads=4/3}?"),
        (SearchPlan((), ()), "prune?"),
    ],
)
def test_a_plan_without_other_steps_leaves_them_out(plan, pruned):
    """And so does one without widths of a kind."""
    assert str(plan.recipe) == f"canonicalize?,fuse?,{pruned},first-token?,{INT8}"
    assert Recipe.parse(str(plan.recipe)) == plan.recipe


def test_layers_in_float32_are_named():
    """As `quantize-static` reads them."""
    plan = SearchPlan((4,), (96,), method="mse", float_layers=(0, 5))
    assert "quantize-static{method=mse,float-layers=0/5}," in str(plan.recipe)
    assert Recipe.parse(str(plan.recipe)) == plan.recipe


def test_a_reduced_range_is_named():
    """Where sums of two products must fit 16 bits."""
    plan = SearchPlan((4,), (96,), method="mse", reduce_range=True)
    assert "quantize-static{method=mse,reduce-range=true}," in str(plan.recipe)
    assert Recipe.parse(str(plan.recipe)) == plan.recipe
