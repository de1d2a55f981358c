"""The damage of each step, seen from outside: what it is, when there is none, and that looking changes nothing."""

from dataclasses import replace

import numpy as np
import pytest
from graphs import batches, fixture, prepared, trials

from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.passes.int32_inputs import Int32Inputs
from onnxslim_bert.recipes.recipe import Recipe
from onnxslim_bert.recipes.run import run_recipe, run_step
from onnxslim_bert.recipes.step_damage import StepDamage
from onnxslim_bert.rewriting.trials import Trials

HELD_BACK = ((4, 7), (3, 11))


@pytest.fixture
def model() -> Model:
    return prepared("bert-ts17-eager", Canonicalize(), Fuse())


def damaged(model: Model) -> Model:
    changed = model.clone()
    weight = model.encoder.layers[0].output.weight
    changed.replace(weight, model.array(weight) * np.float32(0.5))
    return changed


def test_it_is_the_damage_that_trials_measure(model):
    given, changed = batches(model, HELD_BACK), damaged(model)
    found = StepDamage(model, given).of(changed)
    assert found == pytest.approx(Trials(model, given, given).damage(changed), rel=1e-6)
    assert found is not None
    assert found > 1e-4


def test_each_step_is_compared_with_the_source():
    """Exact passes do nothing but round; what int8 does stays to be seen after a pass that does nothing more."""
    source = prepared("bert-ts17-sdpa")
    on_rows = trials(prepared("bert-ts17-sdpa", Canonicalize()))
    recipe = Recipe.parse("canonicalize,fuse,quantize-static,skip-mask")
    step_damage = StepDamage(source, on_rows.held_back)
    steps = [run_step(source, step, on_rows, {}, step_damage=step_damage) for step in recipe.steps]
    exact, (int8, last) = steps[:2], steps[2:]
    assert all(step.damage is not None and step.damage < 1e-5 for step in exact)
    assert int8.damage is not None
    assert int8.damage > 1e-3
    assert last.damage == pytest.approx(int8.damage, rel=1e-3)


def test_each_step_says_how_large_the_model_is_then():
    source = Model.load(fixture("bert-ts17-sdpa"))
    on_rows = trials(prepared("bert-ts17-sdpa", Canonicalize()))
    steps = run_recipe(source, Recipe.parse("canonicalize,fuse,quantize-static"), on_rows)
    assert [step.damage for step in steps] == [None] * 3
    canonical, fused, int8 = steps
    assert fused.nodes < canonical.nodes
    assert (int8.nodes, int8.nbytes) == (
        len(source.graph.nodes),
        sum(constant.values.nbytes for constant in source.constants().values()),
    )
    assert int8.nbytes < 0.5 * fused.nbytes


def test_looking_changes_nothing(model):
    before = model.fingerprint()
    step_damage = StepDamage(model, batches(model, HELD_BACK))
    assert step_damage.of(model) == 0
    assert model.fingerprint() == before


def test_ids_are_given_as_the_model_takes_them_now(model):
    step_damage = StepDamage(model, batches(model, HELD_BACK))
    narrow = model.clone()
    run_recipe(narrow, Recipe.parse(Int32Inputs.name))
    assert {tensor.dtype for tensor in narrow.graph.inputs} == {np.dtype(np.int32)}
    assert step_damage.of(narrow) == pytest.approx(0, abs=1e-6)


def test_outputs_of_another_form_are_not_compared(model):
    step_damage = StepDamage(model, batches(model, HELD_BACK))
    other = prepared("bert-features-pooled", Canonicalize(), Fuse())
    assert step_damage.of(other) is None


def test_a_model_that_cannot_run_is_not_compared(model):
    given = batches(model, HELD_BACK)
    step_damage = StepDamage(model, given)
    ids = model.graph.inputs[0].name
    step_damage._rows = [replace(batch, feeds={ids: batch.feeds[ids]}) for batch in given]
    assert step_damage.of(model) is None
