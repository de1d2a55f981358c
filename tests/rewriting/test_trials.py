"""What passes measure on calibration rows: statistics, and the damage that a rewrite does to the outputs."""

import numpy as np
import pytest
from graphs import batches, prepared, trials
from oracles import answers

from onnxslim_bert.calibration.batches import Batch
from onnxslim_bert.calibration.observers import Want
from onnxslim_bert.errors import ModelError
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.rewriting.answers import by_row
from onnxslim_bert.rewriting.trials import Trials

HELD_BACK = ((4, 7), (3, 11))


def expected_damage(model, changed, given):
    """The definition, from answers of both models run one after the other."""
    pairs = list(zip(answers(model, [b.feeds for b in given]), answers(changed, [b.feeds for b in given]), strict=True))
    difference = sum(np.square(ours[n] - theirs[n]).sum() for theirs, ours in pairs for n in theirs)
    return np.sqrt(difference / sum(np.square(values).sum() for theirs, _ in pairs for values in theirs.values()))


@pytest.fixture
def model():
    return prepared("bert-ts17-eager", Canonicalize(), Fuse())


def test_damage_is_the_relative_error_of_the_outputs(model):
    given = batches(model, HELD_BACK)
    changed = model.clone()
    weight = model.encoder.layers[0].output.weight
    changed.replace(weight, model.array(weight) * 0.5)
    found = Trials(model.clone(), batches(model), given).damage(changed)
    assert found == pytest.approx(float(expected_damage(model, changed, given)), rel=1e-3)
    assert found > 1e-4


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_answers_that_are_not_finite_measure_nothing(model, value):
    """A distance from them is no number, by which no pass could choose."""
    broken, weight = model.clone(), model.encoder.layers[-1].output.weight
    broken.replace(weight, np.full_like(model.array(weight), value))
    ours = Trials(broken, batches(model), batches(model, HELD_BACK))
    for measure in (ours.damage, ours.row_errors):
        with pytest.raises(ModelError, match="answers are not finite on calibration rows"):
            measure(model)


def test_variants_are_judged_in_one_session(model):
    """Each as a model of its own; what a variant does not name stays as it is."""
    down, output = (model.encoder.layers[1].linears[role].weight for role in ("down", "output"))
    variants = [{}, {down: model.array(down) * 0}, {output: -model.array(output), down: model.array(down) * 2}]
    on_rows = trials(model)
    alone = []
    for variant in variants:
        changed = model.clone()
        for name, values in variant.items():
            changed.replace(name, values.astype(np.float32))
        alone.append(on_rows.damage(changed))
    assert on_rows.damages(model, variants) == pytest.approx(alone, abs=1e-5)
    assert alone[0] == pytest.approx(0, abs=1e-5)
    assert min(alone[1:]) > 1e-3


def test_padding_is_left_out():
    """A hidden state counts for its real tokens: what a model answers on padding is no damage."""
    model = prepared("bert-features-pooled", Canonicalize(), Fuse())
    given = batches(model, HELD_BACK)
    exact = answers(model, [batch.feeds for batch in given])
    found = Trials(model, given, given)._answers
    for i, batch in enumerate(given):
        np.testing.assert_allclose(found[i][0], exact[i]["last_hidden_state"][batch.mask], atol=1e-5)
        np.testing.assert_allclose(found[i][1], exact[i]["pooler_output"], atol=1e-5)


def test_ids_are_counted_without_padding(model):
    name = model.graph.inputs[0].name
    given = batches(model)
    expected = np.bincount(np.concatenate([batch.feeds[name][batch.mask] for batch in given]))
    want = Want(name, "counts")
    np.testing.assert_array_equal(trials(model).collect(model, [want])[want], expected)
    held_back = Trials(model, [], given).held_back_counts(name)
    np.testing.assert_array_equal(held_back, expected)


def test_row_errors_count_each_row_once_however_long(model):
    """The definition for logits; hard rows come behind those held back."""
    given, hard = batches(model, HELD_BACK), batches(model, ((2, 1), (3, 13)))
    changed = model.clone()
    weight = model.encoder.layers[0].output.weight
    changed.replace(weight, model.array(weight) * 0.5)
    found = Trials(model.clone(), given, given, hard=([], hard)).row_errors(changed)
    pairs = zip(*(answers(m, [b.feeds for b in (*given, *hard)]) for m in (model, changed)), strict=True)
    exact, moved = (np.concatenate(side) for side in zip(*((a["logits"], b["logits"]) for a, b in pairs), strict=True))
    expected = np.square(moved - exact).mean(1) / np.square(exact).mean(1).mean()
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    assert len(found) == 12


def test_row_errors_are_those_of_real_tokens():
    """A row of two tokens whose states are wholly wrong counts as much as a long one."""
    model = prepared("bert-features", Canonicalize(), Fuse())
    given = batches(model, ((2, 2), (2, 9)))
    changed = model.clone()
    norm = [node for node in changed.graph.nodes if node.op == "LayerNormalization"][-1]
    for tensor in norm.inputs[1:]:
        changed.replace(tensor.name, tensor.values * 0)
    np.testing.assert_allclose(Trials(model, given, given).row_errors(changed).mean(), 1, rtol=1e-4)


def test_what_is_wanted_hard_is_taken_of_hard_rows_too(model):
    """And what is not so is not."""
    given, hard = batches(model), batches(model, ((6, 3),))
    source = model.encoder.layers[0].up.source
    wants = [Want(source, "sample"), Want(source, "sample", hard=True)]
    plain, both = Trials(model, given, given, hard=(hard, [])).collect(model, wants).values()
    np.testing.assert_array_equal(plain, Trials(model, given, given).collect(model, wants)[wants[0]])
    np.testing.assert_array_equal(both, Trials(model, [*given, *hard], given).collect(model, wants)[wants[0]])
    assert len(both) == len(plain) + hard[0].mask.sum()


@pytest.mark.parametrize(
    ("count", "expected"),
    [(3, [25, 25]), (2, [16, 9]), (4, [12.5, 2.5]), (5, [11, 11])],
    ids=["a token", "a row", "two of each row", "of no row"],
)
def test_mean_squares_by_row(count, expected):
    """Three tokens of two rows, two values of them, four, or five that no row has alone, as of relative positions."""
    values = {3: [[3.0], [np.sqrt(41)], [5.0]], 2: [[4.0], [3.0]], 4: [[4.0], [3.0], [1.0], [2.0]]}
    batch = Batch({}, np.array([[True, True], [True, False]]), np.arange(2))
    found = by_row(np.array(values.get(count, np.sqrt([[9.0], [10.0], [11.0], [12.0], [13.0]]))), batch)
    np.testing.assert_allclose(found, expected)
