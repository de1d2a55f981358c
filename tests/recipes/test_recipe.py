"""A recipe reads back as it was written, and what cannot be read is refused with the nearest name."""

import dataclasses
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

from onnxslim_bert.errors import PassError
from onnxslim_bert.passes import PASSES
from onnxslim_bert.passes.mask_bias import MaskBias
from onnxslim_bert.passes.pack_weights import PackWeights
from onnxslim_bert.passes.quantize_blockwise import QuantizeBlockwise
from onnxslim_bert.passes.quantize_embedding import QuantizeEmbedding
from onnxslim_bert.recipes.recipe import Recipe
from onnxslim_bert.rewriting.options import Weight

PARTICULAR = {
    (MaskBias, "value"): -0.5,
    (QuantizeEmbedding, "block"): 64,
    (QuantizeBlockwise, "bits"): 8,
    (QuantizeBlockwise, "block"): 32,
    (PackWeights, "block"): 64,
}
BESIDE = {  # what an option is given with
    ("early-exit", "certainty"): {"after": (1,)},
    ("distill", "layer_epochs"): {"quantized": True},
}
OPTIONS = [(name, option) for name, kind in PASSES.items() for option in dataclasses.fields(kind)]


@pytest.mark.parametrize(
    "text",
    [
        "fuse",
        "canonicalize?,fuse{style=standard},first-token?",
        "smooth{gain=0.25}?,quantize-static{method=moving-average,format=qdq,embeddings=false}",
        "unpad,unpad",
        "drop-layers{layers=4/1,refit=false},prune{heads=6/8/9,neurons=512/640/32}?",
        "quantize-static{float-layers=0/5}",
    ],
)
def test_a_recipe_is_written_as_it_was_read(text):
    assert str(Recipe.parse(text)) == text


def test_spaces_do_not_matter():
    assert str(Recipe.parse(" fuse { style = standard } ? ,\n first-token ")) == "fuse{style=standard}?,first-token"


def test_defaults_are_left_out():
    assert str(Recipe.parse("quantize-static{method=minmax,embeddings=True}")) == "quantize-static"


def test_a_dash_is_an_underscore_in_the_name_of_an_option():
    dashed, plain = (Recipe.parse(f"quantize-static{{correct{c}bias=false}}") for c in "-_")
    assert dashed == plain
    assert str(plain) == "quantize-static{correct-bias=false}"


@pytest.mark.parametrize("name", PASSES)
def test_every_pass_is_known_by_its_name(name):
    step = Recipe.parse(name).steps[0]
    assert (type(step.action), step.optional) == (PASSES[name], False)


@pytest.mark.parametrize(("name", "option"), OPTIONS, ids=[f"{name}-{option.name}" for name, option in OPTIONS])
def test_every_option_is_read_with_its_type(name, option):
    """Another value than the default comes back as itself."""
    action = PASSES[name](**{option.name: other_value(PASSES[name], option)}, **BESIDE.get((name, option.name), {}))
    again = Recipe.parse(str(action)).steps[0].action
    assert again == action
    hint = get_type_hints(PASSES[name])[option.name]
    value = getattr(again, option.name)
    if get_origin(hint) is Literal:
        assert value in get_args(hint)
    else:
        assert type(value) in (float, str) if hint == Weight else type(value) is (get_origin(hint) or hint)


def other_value(kind: type, option: "dataclasses.Field[Any]") -> object:
    """A value of the option that is not its default."""
    hint = get_type_hints(kind)[option.name]
    if get_origin(hint) is Literal:
        return next(value for value in get_args(hint) if value != option.default)
    if (kind, option.name) in PARTICULAR:
        return PARTICULAR[kind, option.name]
    values: dict[Any, list[object]] = {bool: [True, False], int: [3, 4], float: [0.5, 0.25]}
    values[Weight] = ["auto", 0.5]
    values[tuple[int, ...]] = [(3, 2), (4,)]
    return next(value for value in values[hint] if value != option.default)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("quantise-static", "no pass 'quantise-static', did you mean 'quantize-static'"),
        ("canonicalise", "no pass 'canonicalise', did you mean 'canonicalize'"),
        ("xyzzy", "no pass 'xyzzy'; `onnxslim passes` lists them"),
        ("quantize-static{metod=mse}", "quantize-static has no option 'metod', did you mean 'method'"),
        ("first-token{gain=1}", "first-token has no option 'gain'"),
        ("quantize-static{method=max}", "quantize-static: method='max' is not one of minmax, moving-average"),
        (
            "quantize-dynamic{format=QDQ}",
            "quantize-dynamic: format='QDQ' is not one of contrib, qdq, did you mean 'qdq'",
        ),
        ("fuse{style=default}", "fuse: style='default' is not one of contrib, standard"),
        ("quantize-static{embeddings=yes}", "quantize-static: embeddings='yes' is neither true nor false"),
        (f"fix-shapes{{seq={'9' * 400}}}", "9' is not a whole number"),
        (f"prune{{heads=4/{'9' * 400}}}", "9 needed whole numbers, like 4/1"),
        ("prune{heads=abc}", "prune: heads=abc needed whole numbers, like 4/1"),
        ("prune{neurons=4/x}", "prune: neurons=4/x needed whole numbers"),
        ("prune{heads=4/0}", "prune: heads=4/0 needed whole numbers from 1"),
        ("drop-layers{layers=1/x}", "drop-layers: layers=1/x needed whole numbers"),
        ("drop-layers{layers=1/1}", "drop-layers: layers=1/1 names a layer twice"),
        ("drop-layers{layers=2/-1}", "drop-layers: layers=2/-1 needed whole numbers from 0"),
        ("quantize-static{float-layers=0/x}", "quantize-static: float-layers=0/x needed whole numbers"),
        ("quantize-static{float-layers=1.5}", "quantize-static: float-layers=1.5 needed whole numbers"),
        ("gelu-tanh{degree=4}", "gelu-tanh: degree='4' is not one of 3, 5"),
        ("mask-bias{value=0}", "mask-bias: value=0; a value below 0"),
        ("fix-shapes{seq=0}", "fix-shapes: batch=1, seq=0; both are at least 1"),
        ("lower-opset{opset=0}", "lower-opset: opset=0 is not one of 1 to"),
        ("smooth{gain=much}", "smooth: gain='much' is not a number"),
        ("smooth{gain=nan}", "smooth: gain='nan' is not a number"),
        ("smooth{gain=0}", "smooth: gain=0.0 is not in \\(0, 1\\]"),
        ("split-outliers{gain=1.5}", "split-outliers: gain=1.5 is not in \\(0, 1\\]"),
        ("smooth{gain}", "smooth: option 'gain' has no value; write gain=VALUE"),
        ("smooth{gain=0.5,gain=0.7}", "smooth: gain is given twice"),
        ("smooth{gain=0.5", "recipe: a comma was needed before '{gain=0.5'"),
        ("fuse first-token", "recipe: a comma was needed before 'first-token'"),
        ("fuse,", "recipe: cannot read ''"),
        ("", "recipe: cannot read ''"),
        ("fuse,,unpad", "recipe: cannot read ',unpad'"),
        ("fuse??", "recipe: a comma was needed before '\\?'"),
    ],
)
def test_what_cannot_be_read_is_refused(text, message):
    with pytest.raises(PassError, match=message):
        Recipe.parse(text)


def test_a_recipe_knows_whether_it_reads_calibration_rows():
    assert not Recipe.parse("canonicalize,fuse,first-token,quantize-dynamic,float16").wants_calibration
    assert Recipe.parse("fuse,smooth?").wants_calibration
