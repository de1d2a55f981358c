"""A student comes nearer to its teacher, and one that is its teacher stays as it is."""

import builtins
import functools
import importlib.util
from dataclasses import replace

import numpy as np
import pytest
from graphs import SOME, apply, batches, feeds, prepared
from oracles import answers

from onnxslim_bert.calibration.working import Working
from onnxslim_bert.errors import DataError, PassError
from onnxslim_bert.passes import PASSES
from onnxslim_bert.passes.bottleneck import Bottleneck
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.decouple import Decouple
from onnxslim_bert.passes.distill import Distill
from onnxslim_bert.passes.drop_layers import DropLayers
from onnxslim_bert.passes.first_token import FirstToken
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.passes.prune_ffn import PruneFfn
from onnxslim_bert.passes.prune_heads import PruneHeads
from onnxslim_bert.passes.prune_hidden import PruneHidden
from onnxslim_bert.passes.quantize_blockwise import QuantizeBlockwise
from onnxslim_bert.passes.quantize_static import QuantizeStatic
from onnxslim_bert.recipes.recipe import Recipe
from onnxslim_bert.recipes.run import run_recipe
from onnxslim_bert.rewriting.contract import Context
from onnxslim_bert.rewriting.distillation.texts import rows_of
from onnxslim_bert.rewriting.trials import Sampled, Trials

CANONICAL, FUSE = Canonicalize(), Fuse()
CUT = (FUSE, DropLayers(layers=(1,)), PruneHeads(keep=0.5), PruneFfn(keep=0.5))
SIZES = ((32, 9), (32, 6), (32, 7), (32, 4), (32, 5))
OPTIONS = {
    "bottleneck": "{width=8,refit=false}",
    "drop-tokens": "{after=0,at-least=2}",
    "factorize-embedding": "{rank=4}",
    "fix-shapes": "{batch=3,seq=7}",
    "low-rank": "{rank=0.25}",
    "prune": "{heads=2/2/2,neurons=8/8/8}",
    "prune-ffn": "{keep=0.5}",
    "prune-hidden": "{width=8,refit=false}",
    "quantize-blockwise": "{block=16}",
    "quantize-embedding": "{block=8}",
    "student": "{width=8,hidden=32}",
    "trim-vocabulary": "{tokens=25}",
}
BEFORE = {
    "dense-2d": "fuse,fix-shapes{batch=3,seq=7},",
    "lower-opset": "fuse{style=standard},unfuse-norms,gelu-tanh,",
    "quantize-qdq": "fuse{style=standard},fix-shapes{batch=3,seq=7},split-sums?,",
}
QUANTIZING = ("quantize-static", "quantize-dynamic", "quantize-qdq", "quantize-weights", "quantize-blockwise")
REFUSED = (*QUANTIZING, "float16", "skip-mask")
REFUSALS = r"operator \w+ cannot be trained through|is float16; start from the|quantized already; start from the float"
needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None,
    reason="PyTorch is not installed: pip install 'onnxslim-bert[distill]'",
)


def balanced(name):
    """The fixture, whose classes come equally often: weights drawn at random may give one class to every text."""
    model = prepared(name, CANONICAL)
    if model.graph.outputs[0].name == "logits" and "mlm" not in name:
        bias = model.encoder.head[-1].bias
        logits = np.concatenate([given["logits"] for given in answers(model, [b.feeds for b in batches(model, SIZES)])])
        model.replace(bias, model.array(bias) - np.median(logits, 0))
    return model


@functools.cache
def teacher_and_student(name, cut):
    """Of which others work on copies: a cut takes longer than most trainings here."""
    teacher = balanced(name)
    student = teacher.clone()
    for way in cut:
        apply(way, student)
    return teacher, student


def trials_of(teacher, sizes=SIZES, **options):
    return Trials(teacher, batches(teacher, sizes), batches(teacher, ((4, 8),)), **options)


def distilled(name, step, cut=CUT, **options):
    """Teacher, student before, student after, and what was said."""
    teacher, before = (model.clone() for model in teacher_and_student(name, cut))
    after = before.clone()
    change = step.apply(after, Context({}, trials_of(teacher, **options)))
    return teacher, before, after, change


def error(model, teacher, given):
    ours, theirs = answers(model, given), answers(teacher, given)
    squares = [np.square(a[name] - b[name]).sum() for a, b in zip(ours, theirs, strict=True) for name in b]
    return float(sum(squares))


@needs_torch
@pytest.mark.parametrize("name", [*SOME, "bert-features", "bert-features-pooled", "bert-nomask", "bert-mlm"])
def test_the_student_answers_more_like_its_teacher(name):
    teacher, before, after, change = distilled(name, Distill(steps=60, batch=8, texts=200, rate=0.004))
    given = [feeds(teacher, 6, length, seed=50 + length) for length in (5, 8)]
    assert change
    first, last = change.details["errors"]
    assert last < 0.9 * first
    assert error(after, teacher, given) < error(before, teacher, given)


@needs_torch
def test_a_student_of_a_narrower_stream_comes_nearer_too():
    step = Distill(steps=100, batch=8, texts=400, rate=0.002)
    _, before, after, change = distilled("bert-ts17-sdpa", step, cut=(FUSE, PruneHidden(width=8)))
    first, last = change.details["errors"]
    assert last < 0.9 * first
    assert before.encoder.hidden == after.encoder.hidden == 8


@needs_torch
def test_a_loss_for_which_there_is_nothing_to_compare_is_said_to_be_left_out():
    """Layers of a narrower stream leave less than the teacher's; queries may be of any width."""
    *_, change = distilled(
        "bert-ts17-sdpa",
        Distill(steps=10, batch=8, texts=100, rate=0.002, hidden=0.5, relations=0.1),
        (FUSE, PruneHidden(width=8, refit=False)),
    )
    assert change.note.endswith("; no hidden: nothing is as wide as the teacher's")
    assert (change.details["hidden"], change.details["relations"]) == (0, 3)


@needs_torch
def test_a_bottleneck_comes_nearer_to_the_whole():
    """So do the matrices in front of a layer and behind it, which it did not have."""
    step = Distill(steps=40, batch=8, texts=200, rate=0.003)
    _, before, after, change = distilled("bert-ts17-sdpa", step, (FUSE, Bottleneck(width=6, refit=False)))
    assert change.details["errors"][1] < 0.7 * change.details["errors"][0]
    products = [node for node in after.graph.nodes if "bottleneck" in node.name and node.op == "MatMul"]
    assert len(products) == 6
    for node in products:
        assert np.abs(node.inputs[1].values - before.array(node.inputs[1].name)).max() > 1e-4


@needs_torch
def test_a_model_whose_lower_layers_read_the_texts_of_a_pair_apart_comes_nearer_to_the_one_that_reads_them_together():
    _, _, _, change = distilled(
        "bert-ts17-sdpa", Distill(steps=60, batch=8, texts=200, rate=0.004), (FUSE, Decouple(2, 4))
    )
    first, last = change.details["errors"]
    assert last < 0.9 * first


@needs_torch
@pytest.mark.parametrize("loss", ["chances", "hidden", "relations", "likenesses"])
def test_every_loss_alone_brings_the_student_nearer(loss):
    name = "bert-features-pooled" if loss == "likenesses" else "bert-dynamo20-sdpa"
    step = Distill(
        **{"answers": 0.0, "chances": 0.0, "likenesses": 0.0} | {loss: 1.0}, steps=50, batch=8, texts=200, rate=0.002
    )
    _, before, after, change = distilled(name, step)
    weight = after.encoder.layers[0].up.weight
    assert change
    assert np.abs(after.array(weight) - before.array(weight)).max() > 1e-5
    assert change.details["errors"][1] < change.details["errors"][0]


@needs_torch
def test_labels_are_used_where_they_are_named():
    """With the labels that the teacher gives: other weights than without, and no farther away for them."""
    teacher = prepared("bert-dynamo20-sdpa", CANONICAL)
    rows = batches(teacher, SIZES)
    labels = np.concatenate([given["logits"].argmax(-1) for given in answers(teacher, [b.feeds for b in rows])])
    found = []
    for share in (0.0, 0.1):
        step = Distill(steps=30, batch=8, texts=200, rate=0.002, labels=share)
        found.append(distilled("bert-dynamo20-sdpa", step, corpus=lambda most: Sampled(rows, labels)))
    assert found[0][2].fingerprint() != found[1][2].fingerprint()
    assert all(change.details["errors"][1] < change.details["errors"][0] for *_, change in found)


@needs_torch
def test_a_student_that_is_its_teacher_stays_as_it_is():
    _, before, after, change = distilled("bert-dynamo20-sdpa", Distill(steps=5, batch=8, texts=100), cut=(FUSE,))
    assert not change
    assert change.note == "the model answers as the one that it was made from"
    assert after.fingerprint() == before.fingerprint()


@needs_torch
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others():
    found = [
        distilled("bert-ts17-sdpa", Distill(steps=12, batch=8, texts=100, rate=0.002, seed=seed))[2].fingerprint()
        for seed in (0, 0, 1)
    ]
    assert found[0] == found[1] != found[2]


@needs_torch
@pytest.mark.parametrize("words", [False, True])
def test_the_word_table_moves_only_when_asked(words):
    step = Distill(steps=20, batch=8, texts=100, rate=0.002, words=words)
    _, before, after, change = distilled("bert-ts17-sdpa", step)
    word = before.encoder.embeddings.word
    assert change
    assert np.array_equal(before.array(word), after.array(word)) is not words


@needs_torch
@pytest.mark.parametrize("name", [name for name in PASSES if name not in ("distill", "early-exit")])
def test_behind_every_other_pass_it_trains_or_says_why_not(name):
    """What it trains opens in ONNX Runtime and answers more like its teacher; what it refuses stays as it is."""
    teacher = balanced("bert-dynamo20-sdpa")
    given = trials_of(teacher, ((3, 7),) * 30)
    student = teacher.clone()
    run_recipe(
        student, Recipe.parse(f"{BEFORE.get(name, 'fuse,')}{name}{OPTIONS.get(name, '')}?"), given, allow_noop=True
    )
    before = student.fingerprint()
    step = Distill(steps=10, batch=6, texts=60, rate=0.001, hidden=0.1, relations=0.1)
    if name == "student":
        with pytest.raises(PassError, match="compare layers, of which this student has none"):
            step.apply(student, Context({}, given))
        step = replace(step, hidden=0.0, relations=0.0, rate=0.01, words=True)
    if name in REFUSED:
        with pytest.raises(PassError, match=REFUSALS):
            step.apply(student, Context({}, given))
        assert student.fingerprint() == before
        if name not in QUANTIZING:
            return
        step = replace(step, quantized=True, rate=0.0001)
    assert step.apply(student, Context({}, given)).note
    types = {tensor.name: tensor.dtype for tensor in student.graph.inputs}
    fed = {tensor: values.astype(types[tensor]) for tensor, values in feeds(teacher, 3, 7).items()}
    assert np.isfinite(answers(student, [fed])[0]["logits"]).all()


@needs_torch
def test_what_layers_share_stays_shared():
    step = Distill(steps=60, batch=8, texts=400, rate=0.002)
    _, before, after, change = distilled("albert-ts17-sdpa", step, cut=(FUSE, PruneFfn(keep=0.5)))
    assert change
    assert set(after.constants()) == set(before.constants())
    assert len({layer.up.weight for layer in after.encoder.layers}) == 1


@needs_torch
def test_a_classifier_that_computes_one_token_last_is_trained_too():
    _, _, _, change = distilled(
        "bert-dynamo20-sdpa",
        Distill(steps=40, batch=8, texts=100, rate=0.002, hidden=0.5, relations=0.1),
        cut=(*CUT, FirstToken()),
    )
    assert change
    assert (change.details["hidden"], change.details["relations"]) == (1, 2)  # not the last layer's end and its query


@needs_torch
def test_without_replaced_tokens_there_are_no_copies():
    teacher, _, _, change = distilled("bert-ts17-sdpa", Distill(steps=20, batch=8, replace=0.0, rate=0.002))
    given = trials_of(teacher)
    distinct = {row.key for row in rows_of(given.fitting)} - {row.key for row in rows_of(given.held_back)}
    assert change.details["copies"] == 0
    assert change.details["texts"] == round(0.9 * len(distinct))  # without the tenth that is held back


@needs_torch
def test_texts_that_choices_are_judged_by_are_not_trained_on():
    teacher = prepared("bert-ts17-sdpa", CANONICAL)
    rows = batches(teacher, SIZES)
    on = Trials(teacher, rows, rows[:2])
    student = prepared("bert-ts17-sdpa", CANONICAL, *CUT)
    change = Distill(steps=20, batch=8, replace=0.0, rate=0.002).apply(student, Context({}, on))
    distinct = {row.key for row in rows_of(rows[2:])} - {row.key for row in rows_of(rows[:2])}
    assert change.details["texts"] == round(0.9 * len(distinct))


@needs_torch
def test_a_budget_in_minutes_ends():
    _, _, _, change = distilled("bert-ts17-sdpa", Distill(minutes=0.05, batch=8, texts=200, rate=0.002))
    assert change.details["steps"] > 1


@needs_torch
def test_progress_says_how_far_it_is():
    said = []
    _, _, _, change = distilled(
        "bert-ts17-sdpa",
        Distill(steps=40, batch=8, texts=100, rate=0.002),
        working=Working(progress=lambda task, done, total: said.append((task, done, total))),
    )
    assert change
    assert [done / total for _, done, total in said][-1] == 1
    assert all(word in said[0][0] for word in ("distilling: loss", "held-back error", "agreement", "rows/s"))


@needs_torch
def test_a_teacher_that_answers_one_class_is_refused():
    teacher = prepared("bert-ts17-sdpa", CANONICAL)
    bias = teacher.encoder.head[-1].bias
    teacher.replace(bias, np.array([0, 50, *[0] * (len(teacher.array(bias)) - 2)], np.float32))
    student = prepared("bert-ts17-sdpa", CANONICAL, *CUT)
    with pytest.raises(PassError, match=r"the teacher answers class 1 in all \d+ rows of 'logits'"):
        Distill(steps=3, texts=100).apply(student, Context({}, trials_of(teacher)))


@needs_torch
def test_a_rate_at_which_it_diverges_is_refused_and_nothing_is_changed():
    teacher, student = prepared("bert-ts17-sdpa", CANONICAL), prepared("bert-ts17-sdpa", CANONICAL, *CUT)
    before = student.fingerprint()
    with pytest.raises(PassError, match=r"diverged: at step|the loss is"):
        Distill(steps=40, batch=8, texts=100, rate=50.0).apply(student, Context({}, trials_of(teacher)))
    assert student.fingerprint() == before


@needs_torch
def test_too_few_texts_are_refused():
    teacher, student = prepared("bert-ts17-sdpa", CANONICAL), prepared("bert-ts17-sdpa", CANONICAL, *CUT)
    with pytest.raises(PassError, match=r"9 different texts to learn from; needed 16: --corpus or more --rows"):
        Distill(steps=3).apply(student, Context({}, trials_of(teacher, ((9, 8),))))


@needs_torch
@pytest.mark.parametrize(
    ("step", "message"),
    [
        (QuantizeStatic(), "dense layers are quantized already; start from the float model"),
        (QuantizeStatic(float_layers=(0,)), "multiplies integers in part"),
    ],
)
def test_an_int8_model_is_refused_in_whole_and_in_part(step, message):
    teacher = prepared("bert-ts17-sdpa", CANONICAL)
    student = prepared("bert-ts17-sdpa", CANONICAL, FUSE, step)
    with pytest.raises(PassError, match=message):
        Distill(steps=3).apply(student, Context({}, trials_of(teacher)))


@needs_torch
def test_a_float_model_has_no_integers_to_train():
    with pytest.raises(PassError, match=r"quantized=true, but the model multiplies no integers; run this step behind"):
        distilled("bert-ts17-sdpa", Distill(steps=3, quantized=True))


@needs_torch
@pytest.mark.full_range
@pytest.mark.parametrize("step", [QuantizeStatic(), QuantizeBlockwise(block=16)], ids=["int8", "four bits"])
def test_integers_that_are_trained_answer_more_like_the_teacher(step):
    _, before, after, change = distilled(
        "bert-dynamo20-sdpa", Distill(steps=100, batch=8, texts=400, rate=0.0001, quantized=True), cut=(FUSE, step)
    )
    assert change.details["errors"][1] < 0.8 * change.details["errors"][0]
    assert [node.op for node in after.graph.nodes] == [node.op for node in before.graph.nodes]
    assert {name: c.values.dtype for name, c in after.constants().items()} == {
        name: c.values.dtype for name, c in before.constants().items()
    }


@needs_torch
@pytest.mark.full_range
@pytest.mark.parametrize("step", [QuantizeStatic(), QuantizeBlockwise(block=16)], ids=["int8", "four bits"])
def test_integers_that_are_trained_layer_by_layer_answer_more_like_the_teacher(step):
    """Behind them the integers stay, and so the file is as large."""
    options = {"steps": 5, "batch": 8, "texts": 200, "rate": 1e-5, "quantized": True, "layer_epochs": 2.0}
    teacher, before, after, change = distilled("bert-dynamo20-sdpa", Distill(**options), cut=(FUSE, step))
    first, last = change.details["errors"]
    assert change.details["fitted"]
    assert last < 0.9 * first
    given = [feeds(teacher, 6, length, seed=50 + length) for length in (5, 8)]
    assert error(after, teacher, given) < error(before, teacher, given)
    assert {name: (c.values.dtype, c.values.shape) for name, c in after.constants().items()} == {
        name: (c.values.dtype, c.values.shape) for name, c in before.constants().items()
    }


@needs_torch
@pytest.mark.full_range
def test_layers_that_leave_what_the_teachers_leave_are_not_trained():
    teacher = prepared("bert-dynamo20-sdpa", CANONICAL, FUSE, QuantizeBlockwise(block=16, compute="float32"))
    student = teacher.clone()
    step = Distill(steps=3, batch=8, texts=100, quantized=True, layer_epochs=1.0)
    change = step.apply(student, Context({}, trials_of(teacher)))
    assert not change
    assert "answers as the one that it was made from" in change.note
    for name, constant in student.constants().items():
        np.testing.assert_array_equal(constant.values, teacher.array(name), err_msg=name)


@needs_torch
@pytest.mark.full_range
def test_layers_whose_training_helps_nothing_are_put_back(monkeypatch):
    from onnxslim_bert.rewriting.distillation import distil
    from onnxslim_bert.rewriting.distillation.training import Judged

    monkeypatch.setattr(distil, "judge", lambda *_: Judged(1e-6, 1.0))
    step = Distill(steps=1, batch=8, texts=100, rate=1e-6, quantized=True, layer_epochs=1.0)
    _, before, after, change = distilled("bert-dynamo20-sdpa", step, cut=(FUSE, QuantizeBlockwise(block=16)))
    assert not change
    assert "no weights answered held-back texts better" in change.note
    for name, constant in after.constants().items():
        np.testing.assert_array_equal(constant.values, before.array(name), err_msg=name)


@needs_torch
@pytest.mark.full_range
def test_layers_of_other_sizes_are_not_compared():
    step = Distill(steps=1, batch=8, texts=100, quantized=True, layer_epochs=1.0)
    cut = (FUSE, PruneHidden(width=8, refit=False), QuantizeBlockwise(block=16))
    with pytest.raises(PassError, match=r"layer 0 leaves \[8, \d, 8\], the teacher's \[8, \d, \d+\]"):
        distilled("bert-dynamo20-sdpa", step, cut=cut)


@needs_torch
def test_labels_that_are_not_there_are_asked_for():
    with pytest.raises(PassError, match=r"labels=0.5 needs labels; the texts have none"):
        distilled("bert-ts17-sdpa", Distill(steps=3, batch=8, texts=100, labels=0.5))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"steps": 3, "minutes": 1.0}, "epochs, steps and minutes each say how long; give one of them"),
        ({"rate": 0.0}, "rate=0.0 is not above 0"),
        ({"texts": 0}, "texts=0 is not above 0"),
        ({"layer_epochs": 1.0}, "layer-epochs trains the integers of layers; it goes with quantized=true"),
        ({"layer_epochs": -1.0, "quantized": True}, "layer_epochs=-1.0 is negative"),
        ({"hidden": -1.0}, "hidden=-1.0 is negative"),
        ({"replace": 1.5}, "replace=1.5 is not a share from 0 to 1"),
        ({"answers": 0.0, "chances": 0.0, "likenesses": 0.0}, "every loss has weight 0"),
        ({"answers": "usual"}, "answers='usual' is neither a number nor auto"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, said):
    with pytest.raises(PassError, match=said):
        Distill(**options)


def test_it_asks_for_texts():
    with pytest.raises(DataError, match="name some with --calib"):
        Distill().apply(prepared("bert-ts17-sdpa", CANONICAL), Context({}, None))


def test_without_pytorch_it_says_what_to_install(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "torch" else find(name, *rest))
    imported = builtins.__import__

    def without_torch(name, *rest):
        assert name.split(".")[0] != "torch"
        return imported(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_torch)
    teacher = prepared("bert-ts17-sdpa", CANONICAL)
    with pytest.raises(PassError, match=r"needs PyTorch, .*: pip install 'onnxslim-bert\[distill\]'"):
        Distill().apply(teacher.clone(), Context({}, trials_of(teacher)))
