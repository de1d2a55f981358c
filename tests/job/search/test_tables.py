"""The steps that a model can have, and what each is worth."""

import pytest
from graphs import batches, prepared, trials
from weighing_clock import fake_ms

from onnxslim_bert.job.search.alternatives import Alternative
from onnxslim_bert.job.search.costs import Costs, TimingConditions
from onnxslim_bert.job.search.tables import (
    choose_int8_method,
    embedding_steps,
    layer_steps,
    measure_alternatives,
    measure_sensitivities,
    showing,
    spliced_trials,
    stream_steps,
    token_steps,
)
from onnxslim_bert.passes import PASSES
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.drop_layers import DropLayers
from onnxslim_bert.passes.factorize_embedding import FactorizeEmbedding
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.recipes.recipe import Recipe
from onnxslim_bert.recipes.run import run_recipe
from onnxslim_bert.rewriting.trials import Trials

EXACT = Canonicalize(), Fuse()
COSTS = Costs(source_ms=100.0, full_ms=50.0, full_bytes=5000, savings={})


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    monkeypatch.setitem(PASSES, DropLayers.name, DropLayers)


def measured(model, steps, folder, on_rows=None):
    return measure_alternatives(model, steps, COSTS, TimingConditions(), folder, on_rows or trials(model), "measuring")


def test_a_step_is_worth_what_its_model_shows(tmp_path):
    """Its damage in float, its time and its size as int8, against the whole model as int8."""
    model = prepared("bert-ts17-sdpa", *EXACT)
    step = Alternative("factorize-embedding{rank=3}")
    empty, one = measured(model, [step], tmp_path)
    assert empty == Alternative()
    made = model.clone()
    run_recipe(made, Recipe.parse(step.step), trials(model))
    assert one.damage == pytest.approx(trials(model).damage(made), rel=1e-5)
    assert one.damage > 0
    full = tmp_path / "full.onnx"
    factors = 3 * model.encoder.hidden / 1000  # the clock counts the projection, not the table
    assert one.ms == pytest.approx(50 * (1 - (fake_ms(full) + factors) / fake_ms(full)), rel=1e-3)
    assert [path.name for path in tmp_path.iterdir()] == ["full.onnx"]


def test_layers_that_go_are_those_that_the_pass_found(tmp_path):
    """The search narrows the others."""
    model = prepared("bert-ts17-sdpa", *EXACT)
    _, *found = measured(model, layer_steps(model), tmp_path)
    assert [len(one.gone) for one in found] == [1, 2]
    assert {*found[0].gone} < {*found[1].gone} < {0, 1, 2}
    assert [one.step for one in found] == [f"drop-layers{{layers={'/'.join(map(str, one.gone))}}}" for one in found]
    assert 0 < found[0].ms < found[1].ms
    assert 0 < found[0].nbytes < found[1].nbytes


def test_a_narrower_stream_is_measured(tmp_path):
    """Half of it saves more than a quarter, and does more damage."""
    model = prepared("bert-ts17-sdpa", *EXACT)
    assert [one.step for one in stream_steps(model)] == ["prune-hidden{width=9}", "prune-hidden{width=6}"]
    _, more, less = measured(model, stream_steps(model), tmp_path)
    assert (more.stream, less.stream) == (0.75, 0.5)
    assert 0 < more.nbytes < less.nbytes
    assert 0 < more.damage < less.damage


@pytest.mark.parametrize("name", ["bert-features", "bert-features-pooled"])
def test_an_embedding_model_drops_no_tokens(name, tmp_path):
    """Every token is an output; the step is left out, and nothing is said to be free."""
    model = prepared(name, *EXACT)
    assert measured(model, token_steps(model), tmp_path) == [Alternative()]


def test_a_step_that_a_model_cannot_have_is_left_out(tmp_path):
    """The pass refuses it, or finds nothing to do."""
    model = prepared("bert-ts17-sdpa", *EXACT, FactorizeEmbedding(rank=3))
    steps = [Alternative("factorize-embedding{rank=2}"), Alternative("factorize-embedding{rank=99}")]
    assert measured(model, steps, tmp_path) == [Alternative()]


def test_tokens_are_judged_on_rows_as_long_as_the_workload(tmp_path):
    """Rows of 8 tokens stay whole, since 16 stay at least: on them alone the drop would look free."""
    model = prepared("bert-ts17-sdpa", *EXACT)
    held_back = batches(model, ((4, 8), (2, 5)))
    short = Trials(model.clone(), batches(model), held_back)
    step = Alternative("drop-tokens{keep=0.5,after=0}", after=0, keep=0.5)
    _, one = measured(model, [step], tmp_path, short)
    assert one.damage == pytest.approx(0, abs=1e-5)
    _, one = measured(model, [step], tmp_path, spliced_trials(short, 22))
    assert one.damage > 1e-3
    assert (one.after, one.keep) == (0, 0.5)


def test_steps_fit_the_model():
    """As many layers as there are, ranks and rows of its own table, and none without one."""
    model = prepared("bert-ts17-sdpa", *EXACT)
    rows, width = model.array(model.encoder.embeddings.word).shape
    assert [one.step for one in layer_steps(model)] == ["drop-layers{drop=1}", "drop-layers{drop=2}"]
    assert [one.step for one in token_steps(model)] == [f"drop-tokens{{keep={n},after=1}}" for n in (0.75, 0.5, 0.35)]
    steps = [one.step for one in embedding_steps(model)]
    assert steps[0] == f"factorize-embedding{{rank={width // 2}}}"
    assert steps[-1] == f"trim-vocabulary{{tokens={rows // 4},min-count=0}}"
    assert steps[4:10] == [
        *(f"quantize-embedding{{bits={bits}}}" for bits in (4, 3, 2)),
        *(f"quantize-embedding{{bits={bits},codebook=product}}" for bits in (2, 1)),
        f"trim-vocabulary{{tokens={rows // 2},min-count=0}},quantize-embedding{{bits=4}}",
    ]
    for step in steps:
        Recipe.parse(step)


def test_fewer_bits_of_the_word_table_save_bytes_and_do_damage(tmp_path):
    """Against int8, whose table they replace; fewer tokens save more besides."""
    model = prepared("bert-ts17-sdpa", *EXACT)
    steps = [one for one in embedding_steps(model) if "quantize-embedding" in one.step]
    _, four, three, two, both, *_ = measured(model, steps, tmp_path)
    assert four.damage < three.damage < two.damage
    assert both.nbytes > four.nbytes


@pytest.mark.parametrize("name", ["bert-ts17-sdpa", "albert-ts17-sdpa"])
def test_every_site_is_measured_at_both_ends(name):
    """ALBERT has one site of a kind for all layers."""
    model = prepared(name, *EXACT)
    found = measure_sensitivities(model, trials(model))
    layers = range(len(model.encoder.layers))
    expected = [tuple(layers)] * 2 if "albert" in name else [(i,) for i in layers] * 2
    assert [one.site.layers for one in found] == expected
    for one in found:
        assert {1, one.site.units} <= set(one.damage)
        assert one.damage[one.site.units] == pytest.approx(0, abs=1e-4)
        assert one.damage[1] > 0


def test_the_method_is_one_that_quantizes():
    model = prepared("bert-ts17-sdpa", *EXACT)
    before = len(model.graph.nodes)
    Recipe.parse(f"quantize-static{{method={choose_int8_method(model, trials(model))}}}")
    assert len(model.graph.nodes) == before


def test_the_progress_of_one_stage_alone_is_shown():
    """What runs within it would start its bars again and again."""
    model = prepared("bert-ts17-sdpa", *EXACT)
    shown = []
    on_rows = trials(model)
    on_rows.progress = lambda *step: shown.append(step)
    measure_sensitivities(model, on_rows)
    assert {stage for stage, _, _ in shown} == {"measuring sensitivity"}
    assert [done for _, done, _ in shown] == list(range(1, 7))
    showing(on_rows).progress("anything", 1, 2)
    assert len(shown) == 6
