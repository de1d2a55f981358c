"""Advice is what the passes do, and why they would not."""

import pytest
from graphs import apply, fixture, prepared, trials
from inspected import inspected

from onnxslim_bert.errors import NothingChangedError, SlimError
from onnxslim_bert.inspection.advice import FOR_TARGETS
from onnxslim_bert.passes import PASSES
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.passes.quantize_static import QuantizeStatic
from onnxslim_bert.recipes.recipe import Recipe
from onnxslim_bert.recipes.run import run_recipe


def advice(name: str) -> dict[str, tuple[bool, str]]:
    """By pass: whether it would change the fixture `name`, and how or why not."""
    return {each.name: (each.applies, each.note) for each in inspected(name).passes}


def test_every_pass_for_the_cpu_is_advised_on():
    others = FOR_TARGETS | {"student", "float32"}  # which is advised on where something is float16
    assert list(advice("bert-ts13-eager")) == [name for name in PASSES if name not in others]


def test_exact_passes_are_tried():
    """Their own words are the advice."""
    given = advice("bert-ts13-eager")
    model = prepared("bert-ts13-eager", Canonicalize())
    for name in ("fuse", "first-token", "skip-mask"):
        (done,) = run_recipe(model, Recipe.parse(name))
        assert given[name] == (True, done.note)


def test_a_pass_that_calibrates_says_so():
    given = advice("bert-ts13-eager")
    assert given["smooth"] == (True, "calibration data decides, on 12 inputs of dense layers")
    assert given["quantize-static"][1].endswith("; needs calibration data")
    assert "calibration" not in given["quantize-dynamic"][1]


@pytest.mark.parametrize("name", ["bert-nomask", "decoder-ts17", "quantized-dynamic"])
def test_what_is_advised_is_accepted_and_nothing_else(name):
    """Each pass is run on the fused model. Where calibration data decides, it may find nothing to change."""
    for each in inspected(name).passes:
        if each.name in ("canonicalize", "distill"):
            continue
        model = prepared(name, *[Canonicalize()] * (each.name == "fuse") or (Canonicalize(), Fuse()))
        why = ""
        try:
            few = {"early-exit": "{drop=0.9}"}.get(each.name, "")  # what ten texts can decide
            run_recipe(model, Recipe.parse(f"{each.name}{few}"), trials(model))
        except NothingChangedError as error:
            why = "" if each.note.startswith("calibration data decides") else str(error)
        except SlimError as error:
            why = str(error)
        assert each.applies == (not why), f"{each.name}: {each.note}; run, it said {why!r}"


def test_advice_says_why_not():
    """All tokens are an answer, or there is no mask."""
    reason = "the whole last hidden state is an output ('last_hidden_state')"
    assert advice("bert-features")["first-token"] == (False, reason)
    assert advice("bert-features")["unpad"] == (False, f"padding positions are read: {reason}")
    assert advice("bert-nomask")["unpad"] == (False, "the model reads no attention mask, so it has no padding to drop")


def test_the_estimate_of_int8_is_what_the_weights_lose(tmp_path):
    """From the fused file to the quantized one, names of nodes aside."""
    model = prepared("bert-dynamo18-eager", Canonicalize(), Fuse())
    sizes = []
    for step in (Canonicalize(), QuantizeStatic()):
        apply(step, model)
        sizes.append(sum(constant.values.nbytes for constant in model.constants().values()))
    note = advice("bert-dynamo18-eager")["quantize-static"][1]
    estimate = float(note.partition("about ")[2].partition(" kB")[0]) * 1000
    lost = fixture("bert-dynamo18-eager").stat().st_size - estimate
    assert abs(lost - (sizes[0] - sizes[1])) < 0.1 * lost
