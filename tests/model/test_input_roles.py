"""The inputs of a model are told apart by what the graph does with them; by name only where it leaves that open."""

import itertools
import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import EVERY, FIXTURES, SOME, fixture
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import quantize_dynamic
from random_encoders import HEADS, Kind, encoder
from renamed_inputs import with_inputs, with_mask

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.load_tokenizer import load_tokenizer
from onnxslim_bert.calibration.loading import load_dataset
from onnxslim_bert.calibration.working import Working
from onnxslim_bert.errors import DataError
from onnxslim_bert.model import input_roles
from onnxslim_bert.model.input_roles import find_roles, roles_of
from onnxslim_bert.model.role_names import Named, described, parse_named
from onnxslim_bert.model.role_probe import Input
from onnxslim_bert.proof.evaluation import evaluate
from onnxslim_bert.proof.validate import validate

INT64, FLOAT32 = np.dtype(np.int64), np.dtype(np.float32)
REFERENCE = FIXTURES.parents[1] / "models" / "sst2-tiny"
NAMES = ("input_ids", "attention_mask", "token_type_ids")
CALLED = [*itertools.permutations(NAMES), ("in0", "in1", "in2"), ("input.1", "input_mask", "x")]


def never(feeds: Mapping[str, Array]) -> None:
    """A model that does not run, so that nothing is proven."""


def by_name(inputs: Mapping[str, np.dtype[np.generic]], named: Named | None = None) -> dict[str, str]:
    """Input -> role, of a graph that says nothing."""
    given = {name: Input(np.dtype(dtype), ("batch", "seq")) for name, dtype in inputs.items()}
    return {name: each.role for name, each in find_roles(given, {}, never, named or {}).items()}


@pytest.mark.parametrize(
    ("names", "roles"),
    [
        (["input_ids", "attention_mask", "token_type_ids"], ["ids", "mask", "types"]),
        (["attention_mask", "input_ids"], ["mask", "ids"]),
        (["input_ids", "segment_ids", "input_mask"], ["ids", "types", "mask"]),
        (["input_word_ids:0", "input_mask:0", "input_type_ids:0"], ["ids", "mask", "types"]),
        (["tokens"], ["ids"]),
        (["position_ids", "input_ids"], ["positions", "ids"]),
    ],
)
def test_names_say_what_the_graph_leaves_open(names: list[str], roles: list[str]) -> None:
    """Whatever the order."""
    assert by_name(dict.fromkeys(names, INT64)) == dict(zip(names, roles, strict=True))


def test_what_names_leave_open_is_asked_for() -> None:
    """Never guessed from the order; what the user names is taken."""
    inputs = dict.fromkeys(["x", "y", "z"], INT64)
    with pytest.raises(DataError, match=r"none takes integer token ids: .* --inputs ids=NAME,mask=NAME,types=NAME,pos"):
        by_name(inputs)
    assert by_name(inputs, {"ids": "y", "types": "x", "mask": "z"}) == {"x": "types", "y": "ids", "z": "mask"}


def test_a_mask_may_be_float() -> None:
    assert by_name({"input_ids": INT64, "attention_mask": FLOAT32})["attention_mask"] == "mask"


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"input_ids": INT64, "position_x": INT64, "position_y": INT64}, r"'position_y' \(int64\) cannot be made from"),
        ({"input_ids": INT64, "pixel_values": FLOAT32}, r"'pixel_values' \(float32\) cannot be made from text"),
        ({"input_ids": INT64, "a": INT64}, "model input 'a'"),
        ({"input_ids": FLOAT32}, "none takes integer token ids"),
        ({"attention_mask": INT64}, "none takes integer token ids"),
        ({}, "none takes integer token ids"),
    ],
)
def test_inputs_that_text_cannot_fill_are_refused(inputs: dict[str, np.dtype[np.generic]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        by_name(inputs)


@pytest.mark.parametrize(
    ("text", "named"),
    [("ids=a,mask=b,types=c", {"ids": "a", "mask": "b", "types": "c"}), (" ids = in.0 ", {"ids": "in.0"}), ("", {})],
)
def test_inputs_are_named_by_role(text: str, named: dict[str, str]) -> None:
    assert parse_named(text) == named


@pytest.mark.parametrize("text", ["a", "ids=", "words=a", "ids=a,ids=b", "ids=a,mask=a", "ids=a,"])
def test_other_words_than_roles_are_refused(text: str) -> None:
    with pytest.raises(DataError, match=r"--inputs .*: needed ids=NAME,mask=NAME,types=NAME,positions=NAME"):
        parse_named(text)


def test_an_input_that_the_model_lacks_is_refused() -> None:
    with pytest.raises(DataError, match=r"--inputs ids=words: the model has no such input: it has input_ids"):
        by_name({"input_ids": INT64}, {"ids": "words"})


@pytest.mark.parametrize("name", EVERY)
def test_every_export_says_what_its_inputs_take(name: str) -> None:
    """Whatever the exporter and the attention; here the names are right."""
    found = {each.role: given for given, each in roles_of(fixture(name)).items()}
    right = {"ids": "input_ids", "mask": "attention_mask", "types": "token_type_ids"}
    assert found == {role: right[role] for role in found}
    assert {"ids", "mask"} <= found.keys()


@pytest.mark.parametrize("number", range(len(CALLED)))
@pytest.mark.parametrize("name", SOME)
def test_names_and_order_do_not_matter(tmp_path: Path, name: str, number: int) -> None:
    """Each input keeps its role under any name, also under another's, and in any place.

    An export meets each naming in one order, and another export in another.
    """
    right = roles_of(fixture(name))
    new = dict(zip(NAMES, CALLED[number], strict=True))
    orders = list(itertools.permutations(right))
    order = orders[(number + SOME.index(name)) % len(orders)]
    path = with_inputs(fixture(name), tmp_path / "m.onnx", order, new)
    assert roles_of(path) == {new[given]: right[given] for given in order}


@pytest.mark.parametrize("name", SOME)
def test_a_mask_with_1_for_padding_is_known_by_what_it_does(tmp_path: Path, name: str) -> None:
    """It is fed so, and said."""
    one, minus = np.array(1, np.int64), np.array(-1, np.int64)
    path = with_mask(fixture(name), tmp_path / "m.onnx", "attention_mask", minus, one)
    found = roles_of(path)
    assert (found["attention_mask"].real, found["attention_mask"].padding) == (0, 1)
    assert described(found)["mask"] == "attention_mask (1 for padding)"


@pytest.mark.parametrize("name", SOME)
def test_a_mask_that_is_added_to_scores_is_known_by_what_it_does(tmp_path: Path, name: str) -> None:
    """0 for tokens and a large negative number for padding."""
    scale, offset = np.array(1e-4, np.float32), np.array(1, np.float32)
    path = with_mask(fixture(name), tmp_path / "m.onnx", "attention_mask", scale, offset, TensorProto.FLOAT)
    found = roles_of(path)["attention_mask"]
    assert (found.real, found.padding) == (0, -1e4)


@pytest.mark.parametrize("seed", [0, 16])
def test_padding_that_an_answer_reads_does_not_turn_the_mask_round(tmp_path: Path, seed: int) -> None:
    """A last token that is padding moves the answer by itself: no values of the mask hide it, and the name counts."""
    kind = Kind("table", 0, "none", False, HEADS, "layer", False, "none", "none", "input", 0, "ends")
    model = encoder(kind, seed)
    for name, constant in model.constants().items():
        if constant.values.ndim == 2:
            model.replace(name, 3 * constant.values)  # answers that reach far
    onnx.save(model.proto(), tmp_path / "m.onnx")
    found = roles_of(tmp_path / "m.onnx")["attention_mask"]
    assert (found.role, found.real, found.padding) == ("mask", 1, 0)


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("inverted", [False, True], ids=["1 is a token", "1 is padding"])
def test_ranges_from_run_time_do_not_hide_the_mask(tmp_path: Path, name: str, inverted: bool) -> None:
    """Dynamic int8 rounds every token by what the longest-reaching one needs: still, what hides tokens is the mask."""
    source = fixture(name)
    if inverted:
        source = with_mask(source, tmp_path / "t.onnx", "attention_mask", np.array(-1, np.int64), np.array(1, np.int64))
    with_ranges_from_run_time(source, tmp_path / "q.onnx")
    assert roles_of(tmp_path / "q.onnx") == roles_of(source)
    order = [*roles_of(source)][::-1]
    called = dict(zip(roles_of(source), order, strict=True))
    path = with_inputs(tmp_path / "q.onnx", tmp_path / "r.onnx", order, called)
    assert {called[given]: each for given, each in roles_of(source).items()} == roles_of(path)


def with_ranges_from_run_time(source: Path, path: Path) -> None:
    """`source` as onnxruntime's own dynamic int8."""
    model = onnx.load(source)
    del model.graph.value_info[:]  # which older ones leave as it is for weights that they transpose
    logging.disable(logging.WARNING)
    try:
        quantize_dynamic(model, path, extra_options={"DefaultTensorType": TensorProto.FLOAT})
    finally:
        logging.disable(logging.NOTSET)


@pytest.mark.parametrize("called", CALLED[-2:])
def test_answers_and_accuracy_are_those_of_the_model_itself(tmp_path: Path, called: tuple[str, ...]) -> None:
    """On the reference model, with the last input first and the mask turned round."""
    rows = load_dataset("reviews", "evaluation", rows=40)
    reader = load_tokenizer(REFERENCE)
    one, minus = np.array(1, np.int64), np.array(-1, np.int64)
    turned = with_mask(REFERENCE / "model.onnx", tmp_path / "t.onnx", "attention_mask", minus, one)
    path = with_inputs(turned, tmp_path / "m.onnx", NAMES[::-1], dict(zip(NAMES, called, strict=True)))
    for batch in (1, 7):
        right, found = (
            evaluate(model, rows, Working(tokenizer=reader), batch_size=batch)
            for model in (REFERENCE / "model.onnx", path)
        )
        np.testing.assert_allclose(found.values, right.values, atol=1e-5)
    before, after = (
        validate(model, model, rows, Working(tokenizer=reader)).comparison.scores[0].base.value
        for model in (REFERENCE / "model.onnx", path)
    )
    assert before == after


def towers(path: Path, rows: tuple[int, int]) -> Path:
    """Two texts apart: each reads a table of so many rows, and the answer is the product of their sums."""
    tables = [np.random.default_rng(i).normal(size=(count, 3)).astype(np.float32) for i, count in enumerate(rows)]
    nodes = [
        *(helper.make_node("Gather", [f"table_{end}", f"input_ids_{end}"], [f"words_{end}"]) for end in "ab"),
        *(helper.make_node("ReduceSum", [f"words_{end}", "axis"], [f"sum_{end}"], keepdims=0) for end in "ab"),
        helper.make_node("Mul", ["sum_a", "sum_b"], ["score"]),
    ]
    graph = helper.make_graph(
        nodes,
        "towers",
        [helper.make_tensor_value_info(f"input_ids_{end}", TensorProto.INT64, ("batch", "seq")) for end in "ab"],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ("batch", 3))],
        [
            *(numpy_helper.from_array(table, f"table_{end}") for end, table in zip("ab", tables, strict=True)),
            numpy_helper.from_array(np.array([1], np.int64), "axis"),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize(
    ("rows", "message"),
    [((40, 40), r"the model takes two texts apart \(two towers\)"), ((40, 50), "names do not say which takes token")],
)
def test_two_inputs_of_token_ids_are_refused(tmp_path: Path, rows: tuple[int, int], message: str) -> None:
    """Instead of feeding the second a mask."""
    with pytest.raises(DataError, match=message):
        roles_of(towers(tmp_path / "m.onnx", rows))


def test_what_cannot_be_made_from_text_is_found_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command asks before and after every pass; the second answer, an error too, takes no look at the graph."""
    model = onnx.load(fixture("bert-ts17-sdpa"))
    model.graph.input.add().CopyFrom(onnx.helper.make_tensor_value_info("extra", TensorProto.FLOAT, [3]))
    onnx.save(model, path := tmp_path / "m.onnx")
    with pytest.raises(DataError, match="'extra'") as first:
        roles_of(path)
    monkeypatch.setattr(input_roles, "_graph", lambda _: pytest.fail("looked at it again"))
    with pytest.raises(DataError) as second:
        roles_of(path)
    assert str(second.value) == str(first.value)
