"""A student that is asked for by its sizes or its kind is a recipe of the passes there are."""

import importlib.util
import json

import pytest
from command_line import assert_refused, run, workspace, write_rows
from graphs import fixture

from onnxslim_bert.errors import PassError
from onnxslim_bert.job.student_recipe import Lesson, student_recipe
from onnxslim_bert.job.student_sizes import Sizes, on_the_way, read_sizes
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.recipes.recipe import Recipe
from onnxslim_bert.targets.int8_kernels import u8s8_saturates

CUT = "canonicalize?,fuse?,drop-layers{drop=1},prune{heads=2,neurons=16}"


@pytest.fixture(scope="module")
def teacher():
    """Of 3 layers and a stream of 12."""
    return Model.load(fixture("bert-ts17-sdpa")).encoder


@pytest.mark.parametrize(
    ("student", "lesson", "recipe"),
    [
        ("layers=2,heads=2,neurons=16", Lesson(), f"{CUT},first-token?,distill"),
        (" layers = 2 , neurons=16,heads=2", Lesson(texts=50), f"{CUT},first-token?,distill{{texts=50}}"),
        ("hidden=8,heads=1", Lesson(), "canonicalize?,fuse?,prune{heads=1},prune-hidden{width=8},first-token?,distill"),
        ("heads=1", Lesson(minutes=1.5), "canonicalize?,fuse?,prune{heads=1},first-token?,distill{minutes=1.5}"),
        (
            "layers=1",
            Lesson(tokens=30),
            "canonicalize?,fuse?,drop-layers{drop=2},trim-vocabulary{tokens=30},first-token?,distill",
        ),
        (
            "layers=1,hidden=8,neurons=6",
            Lesson(texts=90, tokens=30, stages=2),
            "canonicalize?,fuse?,drop-layers,prune{neurons=11},prune-hidden{width=10},trim-vocabulary{tokens=30},"
            "distill{texts=30}?,drop-layers,prune{neurons=6},prune-hidden{width=8},first-token?,distill{texts=60}",
        ),
        (
            "bottleneck=5,neurons=6",
            Lesson(texts=90, stages=2),
            "canonicalize?,fuse?,prune{neurons=11},distill{texts=30}?,prune{neurons=6},bottleneck{width=5},first-token?,"
            "distill{rate=0.0001,texts=60}",
        ),
        (
            "heads=1,layers=2",
            Lesson(minutes=6, stages=2),
            "canonicalize?,fuse?,drop-layers,prune{heads=2},distill{minutes=2}?,prune{heads=1},first-token?,"
            "distill{minutes=4}",
        ),
        (
            "neurons=3",
            Lesson(stages=3),
            "canonicalize?,fuse?,prune{neurons=11},distill{texts=3429}?,prune{neurons=6},distill{texts=6857}?,"
            "prune{neurons=3},first-token?,distill{texts=13714}",
        ),
        ("static", Lesson(), "canonicalize?,student{kind=static},distill{words=true,rate=0.005}"),
        (
            "bilstm,width=8,hidden=5",
            Lesson(20, 0, 30),
            "canonicalize?,trim-vocabulary{tokens=30},student{kind=bilstm,width=8,hidden=5},"
            "distill{words=true,rate=0.003,texts=20}",
        ),
    ],
)
def test_a_student_is_a_recipe(teacher, student, lesson, recipe):
    assert student_recipe(student, teacher, lesson) == Recipe.parse(recipe)


def test_int8_is_the_main_job_s_for_this_machine(teacher):
    steps = str(student_recipe("layers=2", teacher, Lesson(int8=True))).split("distill,")[1]
    assert steps.startswith("canonicalize?,fuse?,first-token?,split-outliers?,smooth?,quantize-static{method=best")
    assert ("reduce-range=true" in steps) == u8s8_saturates()


@pytest.mark.parametrize(
    ("student", "lesson", "message"),
    [
        ("mamba", Lesson(), "--student 'mamba' is no kind (bilstm, static), nor sizes like layers=3,heads=6"),
        ("", Lesson(), "--student '' is no kind"),
        ("layer=2", Lesson(), "--student has no size 'layer', did you mean 'layers'?; needed some of layers, hidden"),
        ("layers=0", Lesson(), "--student layers='0' is no whole number from 1"),
        ("layers=two", Lesson(), "--student layers='two' is no whole number from 1"),
        ("layers=2,layers=1", Lesson(), "--student: layers is given twice"),
        ("layers=4", Lesson(), "--student layers=4: the model has 3, and a student is cut from it"),
        ("hidden=13", Lesson(), "--student hidden=13: the model has 12, and a student is cut from it"),
        ("layers=3,hidden=12", Lesson(), "--student: these are the sizes of the model itself"),
        ("static,depth=3", Lesson(), "student has no option 'depth'"),
        ("static", Lesson(stages=2), "--stages 2: a student like 'static' is not cut from the model; leave it out"),
        ("layers=2", Lesson(stages=2), "--stages 2 needs 1 model of sizes between layers=3 and layers=2, and there"),
        ("layers=1", Lesson(stages=4), "--stages 4 needs 3 models of sizes between layers=3 and layers=1, and there"),
        ("bottleneck=4", Lesson(stages=2), "--stages 2 needs a student with fewer layers, channels, heads or neurons"),
        ("bilstm", Lesson(int8=True), "a bilstm student stays float32: leave it out"),
    ],
)
def test_what_cannot_be_made_is_refused(teacher, student, lesson, message):
    with pytest.raises(PassError) as caught:
        student_recipe(student, teacher, lesson)
    assert message in str(caught.value)


def test_sizes_that_are_not_given_are_the_teacher_s():
    assert read_sizes("heads=6,layers=3") == Sizes(layers=3, heads=6)


def test_models_in_between_are_smaller_by_the_same_factors():
    """Only in what is asked for; a teacher whose neurons are not known has as many as its student."""
    assert on_the_way(Sizes(12, 768, 12, 0), Sizes(layers=3, neurons=64), 2) == [
        Sizes(layers=6, neurons=64),
        Sizes(layers=3, neurons=64),
    ]


# the command


def test_the_recipe_can_be_printed_alone(tmp_path):
    """As `slim -p` takes it; nothing is written."""
    model, student = workspace(tmp_path), "layers=2,heads=2,neurons=16"
    outcome = run("distill", model, "--student", student, "--dry-run")
    assert (outcome.code, outcome.out, outcome.err) == (
        0,
        f"{student_recipe(student, Model.load(model).encoder, Lesson())}\n",
        "",
    )


def test_without_texts_or_output_it_is_refused(tmp_path):
    model = workspace(tmp_path)
    assert_refused(run("distill", model, "--student", "static"), "give -o OUTPUT, and texts with --calib")
    dry = run("distill", model, "--student", "static", "--dry-run", "--calib", tmp_path / "calib.tsv")
    assert_refused(dry, "--calib does nothing with --dry-run")


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs PyTorch")
def test_the_command_writes_the_student(tmp_path):
    """By the recipe that it prints."""
    model, output, corpus = workspace(tmp_path), tmp_path / "small.onnx", tmp_path / "corpus.tsv"
    write_rows(corpus, 60, seed=5)
    asked = ("distill", model, "--student", "static,width=8", "--texts", 600)
    outcome = run(*asked, "--calib", tmp_path / "calib.tsv", "--corpus", corpus, "-o", output, "--json")
    assert outcome.code == 0, outcome
    assert output.stat().st_size < model.stat().st_size / 5
    ran = [Recipe.parse(step["step"]) for step in json.loads(outcome.out)["steps"]]
    printed = Recipe.parse(run(*asked, "--dry-run").out)
    assert [recipe.steps[0].action for recipe in ran] == [step.action for step in printed.steps]
