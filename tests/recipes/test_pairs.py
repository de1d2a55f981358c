"""Every pass behind every other: the model works and, after exact passes, answers as before; or the reason is given.

A pass that finds nothing to do leaves nothing new to the one behind it, so such a pair is the second pass alone.
"""

import functools

import numpy as np
import onnx
import pytest
from graphs import batches, feeds, fixture, prepared
from onnxruntime.transformers.float16 import convert_float_to_float16
from oracles import answers, assert_same_answers

from onnxslim_bert.errors import PassError, SlimError
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes import PASSES
from onnxslim_bert.recipes.recipe import Recipe, Step
from onnxslim_bert.recipes.run import run_recipe
from onnxslim_bert.rewriting.trials import Trials

SHAPE = 3, 7  # rows and tokens, which `fix-shapes` fixes
OPTIONS = {  # where defaults are too large for a model of 3 layers, 3 heads and 20 neurons, or measure in rounds
    "bottleneck": "width=8,refit=false",
    "drop-layers": "layers=1",
    "drop-tokens": "after=0,at-least=2",
    "early-exit": "after=0,certainty=0.1",
    "factorize-embedding": "rank=4",
    "fix-shapes": "batch=3,seq=7",
    "low-rank": "rank=0.25",
    "prune": "heads=2/2/2,neurons=8/8/8",
    "prune-ffn": "keep=0.5,rounds=1",
    "prune-heads": "keep=0.5,rounds=1",
    "prune-hidden": "width=8,refit=false",
    "quantize-blockwise": "block=16",
    "quantize-embedding": "block=8",
    "student": "width=8,hidden=8",
    "trim-vocabulary": "tokens=25",
}
STEPS = tuple(f"{name}{{{OPTIONS[name]}}}" if name in OPTIONS else name for name in PASSES)
STANDARD = "fuse{style=standard}"
SOURCES = {  # what the pairs start from, and the steps that are tried first and second there
    "float32": ("canonicalize?", (*STEPS, STANDARD)),
    "fused": ("canonicalize?,fuse", ("skip-mask", "first-token", "unpad", "float16", "quantize-dynamic")),
    "float16": ("canonicalize?,float16", ("fuse", STANDARD, "mask-bias", "skip-mask")),
}

FAULTS = ("ONNX Runtime cannot load", "does not run on", "promises the same", "broke the", "left a model")


@functools.cache
def source(name: str) -> Model:
    """What the pairs start from."""
    model = prepared("bert-ts17-sdpa")
    run_recipe(model, Recipe.parse(SOURCES[name][0]))
    return model


def rows(model: Model) -> Trials:
    """Few rows to measure on, of the fixed shape."""
    given = batches(model, [SHAPE, SHAPE])
    return Trials(model.clone(), given[:1], given[1:])


@pytest.mark.parametrize("first", [f"{name}: {step}" for name, (_, steps) in SOURCES.items() for step in steps])
def test_every_pass_works_behind_it_or_says_why_not(first):
    """The result opens in ONNX Runtime and answers; after two exact passes as the source does, in float32."""
    name, _, text = first.partition(": ")
    original = source(name)
    on_rows, model = rows(original), original.clone()
    (step,) = Recipe.parse(f"{text}?").steps
    if not attempt(model, step, on_rows):
        return
    given = feeds(original, *SHAPE)
    (expected,) = answers(original, [given])
    for second in Recipe.parse(",".join(f"{one}?" for one in (*STEPS, STANDARD))).steps:
        made = model.clone()
        if not attempt(made, second, on_rows):
            continue
        types = {tensor.name: tensor.dtype for tensor in made.graph.inputs}
        (actual,) = answers(made, [{one: values.astype(types[one]) for one, values in given.items()}])
        assert list(actual) == list(expected), second
        for output, values in actual.items():
            assert np.isfinite(values).all(), f"{second}: {output}"
            if step.action.tolerance and second.action.tolerance and name != "float16":
                atol = 2e-4 * max(1.0, np.abs(expected[output]).max())
                np.testing.assert_allclose(values, expected[output], rtol=0, atol=atol, err_msg=str(second))


def attempt(model: Model, step: Step, on_rows: Trials) -> bool:
    """Whether `step` changed the model; when it refuses, it says so in a line, and not that ONNX Runtime refused."""
    refusal = ""
    try:
        (done,) = run_recipe(model, Recipe((step,)), on_rows)
    except SlimError as error:
        refusal = str(error)
    else:
        assert done.count or done.note, step
    assert not any(word in refusal for word in FAULTS), f"{step}: {refusal}"
    return not refusal and done.count > 0


@pytest.mark.parametrize(
    ("recipe", "refusal"),
    [
        ("fuse,skip-mask,unpad", ""),
        ("fuse,unpad,skip-mask", ""),
        ("fuse,float16,skip-mask", ""),
        (
            "fuse,float16,unfuse-norms",
            "unfuse-norms: .* is float16, where squares overflow; start from the float32 model",
        ),
        ("fuse,quantize-dynamic,float16", "float16: node .* is quantized; start from the float32 model"),
        ("quantize-weights,float16", "float16: node .* is quantized; start from the float32 model"),
        ("float16,mask-bias", ""),
        ("fuse{style=standard},float16,first-token", ""),
    ],
)
@pytest.mark.parametrize("name", ["bert-ts17-sdpa", "distilbert-dynamo20-sdpa"])
def test_what_once_wrote_files_that_no_session_opens(name, recipe, refusal):
    model = prepared(name)
    recipe = Recipe.parse(f"canonicalize?,{recipe}")
    if refusal:
        with pytest.raises(PassError, match=refusal):
            run_recipe(model, recipe)
        return
    original = prepared(name)
    run_recipe(model, recipe)
    given = [feeds(model, 3, 7), feeds(model, 1, 5, "full")]
    for ours, theirs in zip(answers(model, given), answers(original, given), strict=True):
        assert_same_answers(ours, theirs, 2e-2 if "float16" in str(recipe) else 1e-4)


@pytest.mark.parametrize("keep_io_types", [True, False], ids=["converted", "half"])
@pytest.mark.parametrize("name", ["bert-ts17-sdpa", "roberta-ts17-sdpa", "bert-dynamo20-eager"])
def test_files_in_half_precision_are_read(name, keep_io_types):
    """As ONNX Runtime's converter writes them, and as `.half()` exports are: inputs and outputs in float16 too."""
    proto = convert_float_to_float16(onnx.load(fixture(name)), keep_io_types=keep_io_types)
    original = Model.from_proto(proto)
    model = original.clone()
    run_recipe(model, Recipe.parse("canonicalize?,fuse?,first-token?,skip-mask?"))
    given = [feeds(model, 3, 7), feeds(model, 1, 5, "full")]
    for ours, theirs in zip(answers(model, given), answers(original, given), strict=True):
        assert_same_answers(ours, theirs, 2e-2)
