"""An input of positions has a role, is fed, and stays what places tokens, through every exact pass."""

from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from command_line import run
from oracles import assert_same_outputs
from random_encoders import HEADS, HIDDEN, POSITIONS, VOCABULARY, Kind, encoder

from onnxslim_bert.errors import DataError
from onnxslim_bert.model.input_roles import roles_of
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.positions import most_tokens
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.recipes.recipe import Recipe
from onnxslim_bert.recipes.run import run_recipe
from onnxslim_bert.rewriting.contract import Context

TABLE = Kind("table", 0, "none", False, HEADS, "layer", False, "none", "none", "input", 0, "first", places="input")
ROTARY = replace(TABLE, positions="none", rotary=True)
KINDS = {"table": TABLE, "rotary": ROTARY, "both": replace(ROTARY, positions="table", head="states")}
EXACT = "canonicalize?,fuse?,mask-bias?,first-token?,skip-mask?,unpad?"


def saved(kind: Kind, path, called="position_ids"):
    model = encoder(kind)
    for tensor in model.graph.inputs:
        tensor.name = {"position_ids": called}.get(tensor.name, tensor.name)
    onnx.save(model.proto(), path)
    return path


def given(length, names):
    """Rows whose tokens have any positions, each row its own."""
    rng, places = np.random.default_rng(length), np.arange(length)
    mask = np.stack([places < length, places < max(1, length // 2), places >= length // 2]).astype(np.int64)
    rows = {
        "input_ids": rng.integers(2, VOCABULARY, mask.shape),
        "attention_mask": mask,
        "position_ids": rng.integers(0, POSITIONS, mask.shape),
    }
    return {name: rows[name] for name in names}


@pytest.mark.parametrize("called", ["position_ids", "x"])
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_positions_are_known_by_their_name_and_by_what_they_do(tmp_path, kind, called):
    """Tokens that change places with their positions change places in the answers."""
    found = roles_of(saved(kind, tmp_path / "m.onnx", called))
    assert (found[called].role, found[called].real) == ("positions", 0)


def test_what_leaves_tokens_their_places_is_no_position(tmp_path):
    """Numbers that are looked up beside positions that the graph counts: nothing says what they are."""
    kind = replace(ROTARY, places="counted")
    model = encoder(kind)
    extra = gs.Variable("x", np.dtype(np.int64), ["batch", "sequence"])
    words = next(node for node in model.graph.nodes if node.op == "Gather")
    table = gs.Constant("extra", np.random.default_rng(0).normal(size=(60, HIDDEN)).astype(np.float32))
    looked, total = gs.Variable("looked"), gs.Variable("total")
    for reader in list(words.outputs[0].outputs):
        reader.inputs[reader.inputs.index(words.outputs[0])] = total
    model.graph.nodes += [
        gs.Node("Gather", "extra", inputs=[table, extra], outputs=[looked]),
        gs.Node("Add", "total", inputs=[words.outputs[0], looked], outputs=[total]),
    ]
    model.graph.inputs.append(extra)
    model.graph.toposort()
    onnx.save(model.proto(), tmp_path / "m.onnx")
    with pytest.raises(DataError, match=r"'x' \(int64\) cannot be made from text.*positions=NAME"):
        roles_of(tmp_path / "m.onnx")


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_exact_passes_keep_what_positions_say(kind):
    """Also where each row has positions of its own, in any order."""
    model = encoder(kind)
    run_recipe(model, Recipe.parse(EXACT))
    names = [tensor.name for tensor in encoder(kind).graph.inputs]
    assert [tensor.name for tensor in model.graph.inputs] == names
    assert_same_outputs(model, encoder(kind), [given(length, names) for length in (1, 2, 7, 33)], atol=1e-5)


def test_rotary_positions_of_each_row_are_two_rotations_and_one_node():
    """That they are no plain attention is seen although all tokens may have one position."""
    model = encoder(ROTARY)
    Canonicalize().apply(model, Context())
    assert "'position_ids'" in model.encoder.layers[0].reason
    run_recipe(model, Recipe.parse("fuse"))
    operators = Counter(node.op for node in model.graph.nodes)
    assert (operators["RotaryEmbedding"], operators["MultiHeadAttention"], operators["Softmax"]) == (4, 2, 0)


def test_positions_begin_behind_the_row_of_padding(tmp_path):
    """As RoBERTa's, whose table has zeros at position 1."""
    model = Model.load(saved(TABLE, tmp_path / "m.onnx"))
    Canonicalize().apply(model, Context())
    table = str(model.encoder.embeddings.position)
    rows = model.array(table).copy()
    rows[1] = 0
    model.replace(table, rows)
    onnx.save(model.proto(), tmp_path / "zero.onnx")
    found = roles_of(tmp_path / "zero.onnx")["position_ids"]
    assert (found.real, found.padding) == (2, 1)
    assert found.written(np.array([[True, True, False], [False, True, True]])).tolist() == [[2, 3, 1], [1, 2, 3]]
    assert most_tokens(model) == POSITIONS - 2


def test_they_are_fed_to_calibration_proof_and_timing(tmp_path):
    """From text, and a length may be fixed."""
    source, out = saved(ROTARY, tmp_path / "m.onnx"), tmp_path / "out.onnx"
    (tmp_path / "texts.txt").write_text("".join(f"{'a b c ' * n}\n" for n in range(1, 9)))
    reader = ("--tokenizer", tokenizer(tmp_path))
    found = run("quantize", source, "--calib", tmp_path / "texts.txt", *reader, "--method", "minmax", "-o", out)
    assert found.code == 0, found.err
    fixed = run("slim", source, "-p", "canonicalize?,fuse,fix-shapes{batch=1,seq=16}", "-o", tmp_path / "fixed.onnx")
    assert fixed.code == 0, fixed.err


def tokenizer(folder):
    """A tokenizer of few words, for small vocabularies."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    made = Tokenizer(WordLevel({"[PAD]": 0, "[UNK]": 1, "a": 2, "b": 3, "c": 4}, unk_token="[UNK]"))
    made.pre_tokenizer = Whitespace()
    made.save(str(folder / "tokenizer.json"))
    return folder
