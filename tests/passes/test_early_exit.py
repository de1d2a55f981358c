"""Texts that leave early get the answers of their exit, all others those of the last layer."""

import platform
from collections.abc import Mapping

import numpy as np
import onnx_graphsurgeon as gs
import onnxruntime as ort
import pytest
from graphs import (
    DISTINCT,
    SOME,
    apply,
    every_padding,
    feeds,
    fixture,
    prepared,
    real_tokens,
    reference,
    takes_no_rows,
    trials,
)
from oracles import answers, assert_layers, assert_same_answers, values_of

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.observers import Want
from onnxslim_bert.errors import PassError
from onnxslim_bert.graph.edit import Builder
from onnxslim_bert.graph.probe import MICROSOFT, producer
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.drop_tokens import DropTokens
from onnxslim_bert.passes.early_exit import EarlyExit
from onnxslim_bert.passes.first_token import FirstToken
from onnxslim_bert.passes.fix_shapes import FixShapes
from onnxslim_bert.passes.float16 import Float16
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.passes.quantize_static import QuantizeStatic
from onnxslim_bert.passes.skip_mask import SkipMask
from onnxslim_bert.passes.unpad import Unpad
from onnxslim_bert.recipes.recipe import Recipe
from onnxslim_bert.recipes.run import run_recipe
from onnxslim_bert.rewriting.contract import Context
from onnxslim_bert.rewriting.exits.heads import Head, fit_head
from onnxslim_bert.rewriting.exits.leaving_rows import LeavingRows
from onnxslim_bert.rewriting.exits.thresholds import certainty_of, choose_exits, fewest_rows, lowest_certainty
from onnxslim_bert.rewriting.exits.whole_batch import whole_batch

CANONICAL, FUSE, FIRST, SKIP = Canonicalize(), Fuse(), FirstToken(), SkipMask()
SURE = EarlyExit(after=(0, 1), certainty=0.1)  # few classes: everybody leaves behind layer 0


def heads(model: Model, given: Mapping[str, Array], places: tuple[int, ...] = (0, 1)) -> dict[int, tuple[Head, float]]:
    """Heads for these layers, and for each the certainty that half of the rows of `given` have."""
    states = pooled(model, given, places)
    (last,) = answers(model, [given])
    classes, rng = next(iter(last.values())).shape[1], np.random.default_rng(0)
    found = {}
    for place in places:
        weight = rng.standard_normal((model.encoder.hidden, classes)).astype(np.float32)
        head = Head(weight, rng.standard_normal(classes).astype(np.float32))
        certainty = np.sort(certainty_of(states[place] @ head.weight + head.bias))
        middle = len(certainty) // 2
        found[place] = head, float(certainty[middle - 1 : middle + 1].mean())
    return found


def pooled(model: Model, given: Mapping[str, Array], places: tuple[int, ...]) -> dict[int, Array]:
    """The mean over real tokens of what layers behind these read, [batch, hidden], by numpy."""
    mask = real_tokens(dict(given))[..., None]
    names = [stream(model, place) for place in places]
    held = values_of(model, names, given)
    return {place: (values * mask).sum(1) / mask.sum(1) for place, values in zip(places, held, strict=True)}


def stream(model: Model, place: int) -> str:
    """Pre-norm layers read a norm of the stream, int8 ones a scaled stream."""
    return str(LeavingRows(model.clone()).stream(model.encoder.layers[place]).name)


def with_exits(model: Model, exits: Mapping[int, tuple[Head, float]]) -> Model:
    made = model.clone()
    leaving = LeavingRows(made)
    for place, (head, certainty) in exits.items():
        leaving.leave(made.encoder.layers[place], head, certainty)
    leaving.finish()
    made.changed()
    return made


def expected(model: Model, exits: Mapping[int, tuple[Head, float]], given: Mapping[str, Array]) -> dict[str, Array]:
    (last,) = answers(model, [given])
    ((name, values),) = last.items()
    states, here, found = pooled(model, given, tuple(exits)), np.ones(len(values), bool), values.copy()
    for place, (head, certainty) in exits.items():
        early = (states[place] @ head.weight + head.bias).astype(np.float32)
        leaves = here & (certainty_of(early) >= certainty)
        found[leaves] = early[leaves]
        here &= ~leaves
    return {name: found}


@takes_no_rows
@pytest.mark.parametrize("name", [*DISTINCT, "bert-nomask", "bert-dynamo23-sdpa"])
def test_who_is_sure_gets_the_answer_of_its_exit_and_who_is_not_that_of_the_last_layer(name):
    """Behind two layers, with every padding, and with a text alone."""
    before = prepared(name, CANONICAL, FUSE)
    exits = heads(before, feeds(before, 8, 9))
    model = with_exits(before, exits)
    assert_layers(model, reference(name))
    assert [layer.form is not None for layer in model.encoder.layers] == [True, True, True]
    for number, given in enumerate([feeds(before, 8, 9), *every_padding(before)]):
        (actual,) = answers(model, [given])
        assert_same_answers(actual, expected(before, exits, given), 1e-5, f"batch {number}: ")


@takes_no_rows
@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize(
    "steps",
    [(CANONICAL,), (CANONICAL, FUSE, FIRST), (CANONICAL, FUSE, FIRST, SKIP), (CANONICAL, FUSE, QuantizeStatic())],
    ids=["as exported", "first-token", "skip-mask", "int8"],
)
def test_in_other_forms_too(name, steps):
    before = prepared(name, *steps)
    given = feeds(before, 8, 9)
    exits = heads(before, given)
    (actual,) = answers(with_exits(before, exits), [given])
    assert_same_answers(actual, expected(before, exits, given), 1e-4)


@takes_no_rows
@pytest.mark.parametrize("name", SOME)
def test_layers_behind_an_exit_work_on_the_rows_that_are_left(name):
    """Half of eight behind the first; none, and no answer is lost, where all have left."""
    before = prepared(name, CANONICAL, FUSE, FIRST)
    given = feeds(before, 8, 9)
    exits = heads(before, given)
    model = with_exits(before, exits)
    rows = [len(values) for values in values_of(model, [layer.up.result for layer in model.encoder.layers], given)]
    assert rows[:2] == [8, 4]
    assert rows[2] < 4
    all_leave = {place: (head, 0.0) for place, (head, _) in exits.items()}
    gone = with_exits(before, all_leave)
    rows = [len(values) for values in values_of(gone, [layer.up.result for layer in gone.encoder.layers], given)]
    assert rows == [8, 0, 0]
    assert_same_answers(answers(gone, [given])[0], expected(before, all_leave, given), 1e-5)


@takes_no_rows
@pytest.mark.parametrize("name", SOME)
def test_a_text_answers_alone_as_in_a_batch(name):
    before = prepared(name, CANONICAL, FUSE, FIRST)
    given = feeds(before, 5, 11)
    model = with_exits(before, heads(before, given))
    (together,) = answers(model, [given])
    lengths = real_tokens(given).sum(1)
    alone = answers(model, [{n: v[i : i + 1, :length] for n, v in given.items()} for i, length in enumerate(lengths)])
    for i, answer in enumerate(alone):
        np.testing.assert_allclose(answer["logits"][0], together["logits"][i], atol=1e-5)


@pytest.mark.parametrize("name", SOME[::2])
def test_statistics_are_of_all_rows_as_if_none_had_left(name):
    before = prepared(name, CANONICAL, FUSE)
    half = with_exits(before, heads(before, feeds(before, 8, 9)))
    wants = [Want(layer.up.source, "minmax") for layer in before.encoder.layers]
    assert trials(before).collect(half, wants) == trials(before).collect(before, wants)


def test_whole_batches_of_a_model_without_exits_are_its_own():
    model = prepared("bert-ts17-eager", CANONICAL, FUSE)
    assert whole_batch(model) is model


@takes_no_rows
@pytest.mark.parametrize("name", SOME)
def test_the_pass_fits_its_exits_to_the_model(name):
    """What it writes is what heads answer that are fitted here."""
    model = prepared(name, CANONICAL, FUSE, FIRST)
    before, on_rows = model.clone(), trials(model)
    change = SURE.apply(model, Context({}, on_rows))
    assert change.count == 1
    assert "100 % behind layer 0" in change.note
    states = [pooled(before, batch.feeds, (0,))[0] for batch in on_rows.fitting]
    last = [answer["logits"] for answer in answers(before, [batch.feeds for batch in on_rows.fitting])]
    head, _ = fit_head(np.concatenate(states), np.concatenate(last))
    given = feeds(before, 4, 6)
    (actual,) = answers(model, [given])
    np.testing.assert_allclose(actual["logits"], pooled(before, given, (0,))[0] @ head.weight + head.bias, atol=1e-4)


@takes_no_rows
@pytest.mark.parametrize("step", ["fuse?", "skip-mask", "quantize-dynamic", "early-exit"])
def test_no_step_runs_behind_it_and_the_written_file_can_be_read_again(step):
    before = prepared("bert-ts17-eager", CANONICAL, FUSE)
    model = with_exits(before, heads(before, feeds(before, 8, 9)))
    given = [feeds(before, 8, 9)]
    (exited,) = answers(model, given)
    run_recipe(model, Recipe.parse("canonicalize"), allow_noop=True)
    assert_same_answers(answers(model, given)[0], exited, 1e-5)
    refusal = f"{step.rstrip('?')}: texts leave this model early; run all other steps before `early-exit`"
    with pytest.raises(PassError, match=refusal):
        run_recipe(model, Recipe.parse(step), trials(before))


def test_a_head_finds_a_linear_answer_and_is_judged_on_rows_it_has_not_seen():
    rng = np.random.default_rng(0)
    states = rng.standard_normal((400, 6)).astype(np.float32) * [1, 10, 0.1, 1, 1, 1] + 3
    weight, bias = rng.standard_normal((6, 3)), rng.standard_normal(3)
    head, unseen = fit_head(states, states @ weight + bias)
    np.testing.assert_allclose(states @ head.weight + head.bias, states @ weight + bias, atol=2e-2)
    np.testing.assert_allclose(unseen, states @ weight + bias, atol=2e-2)
    noise = rng.standard_normal((400, 3))
    _, unseen = fit_head(states, noise)
    assert np.square(unseen - noise).mean() > 0.9 * noise.var()


@pytest.mark.parametrize(("share", "rows"), [(0.01, 99), (0.02, 49), (0.5, 1), (0.01 / 3, 299)])
def test_as_many_rows_are_needed_as_bound_the_share(share, rows):
    sure = np.linspace(0.5, 1, rows)
    assert fewest_rows(share) == rows
    assert lowest_certainty(sure, np.zeros(rows, bool), share) == 0.0
    assert lowest_certainty(sure[1:], np.zeros(rows - 1, bool), share) > 1


def test_certainty_lies_just_above_the_wrong_rows_that_are_too_many():
    """Of nine rows and a share of a fifth, one may be sure and wrong: 0.2 * 10 - 1."""
    sure = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.5, 0.5, 0.5, 0.5])
    wrong = np.array([0, 1, 0, 1, 0, 0, 0, 0, 1], bool)
    found = lowest_certainty(sure, wrong, 0.2)
    assert 0.6 < found < 0.6001
    assert lowest_certainty(sure, wrong, 0.4) == 0.0


def test_exits_share_the_drop_and_are_chosen_for_the_fewest_layers():
    """Layer 1 knows all that layer 0 knows and more; layer 0 is wrong about half."""
    rows = np.arange(200)
    sure = {0: np.where(rows < 80, 0.9, 0.6), 1: np.where(rows < 160, 0.9, 0.6)}
    wrong = {0: rows >= 80, 1: rows >= 160}
    both = choose_exits(sure, wrong, 4, 0.05)
    assert both.left == {0: 0.4, 1: 0.4}
    assert both.depth == pytest.approx(0.4 * 1 + 0.4 * 2 + 0.2 * 4)
    assert both.changed == 0
    assert choose_exits(sure, wrong, 4, 0.05, (1,)).left == {1: 0.8}
    assert choose_exits(sure, wrong, 4, 0.004).certainties == {}


@pytest.mark.parametrize(
    ("name", "steps", "reason"),
    [
        ("bert-features", (CANONICAL, FUSE), "is not [batch, classes]"),
        (
            "bert-features-pooled",
            (CANONICAL, FUSE),
            "an exit answers logits [batch, classes] alone, and the outputs are",
        ),
        ("bert-mlm", (CANONICAL, FUSE), "is not [batch, classes]"),
        ("bert-ts13-eager", (CANONICAL, FUSE, FIRST, Unpad()), "leave `unpad` out"),
        ("bert-ts13-eager", (CANONICAL, FUSE, FixShapes(batch=3, seq=9)), "the batch is fixed to 3"),
        ("bert-ts13-eager", (CANONICAL, FUSE, Float16()), "the model is float16; run early-exit before `float16`"),
        ("electra-dynamo20-eager", (CANONICAL, Fuse(style="standard")), "when all texts have left, "),
    ],
    ids=["states", "pooled", "masked words", "unpadded", "fixed", "float16", "standard"],
)
def test_what_cannot_be_left_early_is_left_and_told(name, steps, reason):
    model = prepared(name, *steps)
    before = model.fingerprint()
    change = apply(EarlyExit(after=(0,), certainty=0.1), model)
    assert not change
    assert reason in change.note
    assert model.fingerprint() == before


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="elsewhere dividing by 0 does not crash")
def test_a_model_that_crashes_without_rows_is_left_and_told():
    """As GroupQueryAttention does, which here adds nothing to the logits."""
    model = prepared("bert-ts17-eager", CANONICAL, FUSE)
    build, (output,) = Builder(model.graph, "more"), model.graph.outputs
    logits = gs.Variable("logits before")
    producer(output).outputs = [logits]
    none = [build.constant("none", np.zeros(shape, np.float32)) for shape in ((5, 8), (8, 5))]
    axis, total = build.constant("axis", np.array([1])), build.constant("total", np.array(1, np.int32))
    token = build.node("Unsqueeze", "token", [build.node("MatMul", "token", [logits, none[0]]), axis])
    rows = build.node("Shape", "rows", [model.graph.inputs[0]], end=1)
    last = build.node("Expand", "last", [build.constant("last", np.array([0], np.int32)), rows])
    inputs = [token, token, token, None, None, last, total]
    found, *_ = build.nodes("GroupQueryAttention", "found", inputs, 3, MICROSOFT, num_heads=1, kv_num_heads=1)
    more = build.node("Squeeze", "more", [build.node("MatMul", "more", [found, none[1]]), axis])
    model.graph.nodes.append(gs.Node("Add", "all", inputs=[logits, more], outputs=[output]))
    model.changed()
    change = apply(SURE, model)
    assert not change
    assert f"ONNX Runtime {ort.__version__} crashes on the batch without rows" in change.note


@takes_no_rows
def test_no_exit_is_written_that_no_text_takes():
    model = prepared("bert-ts17-eager", CANONICAL, FUSE)
    before = model.fingerprint()
    change = apply(EarlyExit(after=(0,), certainty=0.999), model)
    assert (bool(change), change.note) == (
        False,
        "of 10 texts none could leave behind an earlier layer; give a larger drop",
    )
    assert model.fingerprint() == before


@takes_no_rows
def test_a_drop_that_the_texts_cannot_decide_is_refused():
    with pytest.raises(PassError, match=r"drop=0.01 is decided on 199 texts or more, and there are 10; give --corpus"):
        apply(EarlyExit(after=(0, 1)), prepared("bert-ts17-eager", CANONICAL, FUSE))


def test_a_model_that_hands_on_more_than_its_stream_is_refused():
    """Behind `drop-tokens`, the mask of the tokens left depends on the layers before."""
    model = prepared("bert-ts17-eager", CANONICAL, FUSE, FIRST, DropTokens(after=0, at_least=2))
    with pytest.raises(PassError, match=r"layers behind . read node .* past the stream"):
        apply(SURE, model)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"drop": 0.0}, r"drop=0.0 is not in \(0, 1\)"),
        ({"drop": 1.0}, r"drop=1.0 is not in \(0, 1\)"),
        ({"certainty": 1.5, "after": (1,)}, r"certainty=1.5 is not in \(0, 1\)"),
        ({"certainty": 0.9}, "certainty is that of exits which `after` names"),
        ({"certainty": 0.9, "after": (1,), "drop": 0.02}, "give one of them"),
        ({"after": (1, 1)}, "names a layer twice"),
        ({"after": (-1,)}, "needed whole numbers from 0"),
        ({"texts": 0}, "texts=0 is less than 1"),
    ],
    ids=str,
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(PassError, match=message):
        EarlyExit(**options)


def test_an_exit_behind_the_last_layer_is_refused():
    with pytest.raises(PassError, match="after=2 goes beyond layer 1, the last that has another behind it"):
        apply(EarlyExit(after=(2,)), Model.load(fixture("bert-ts17-eager")))
