"""Below the cut the two texts of a pair are read as if each stood alone."""

import re

import numpy as np
import pytest
from graphs import apply, causal, prepared
from oracles import answers, assert_same_answers, values_of

from onnxslim_bert.arrays import Array
from onnxslim_bert.errors import PassError
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.decouple import Decouple
from onnxslim_bert.passes.fix_shapes import FixShapes
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.passes.skip_mask import SkipMask
from onnxslim_bert.passes.unpad import Unpad
from onnxslim_bert.rewriting.contract import Context

CANONICAL, FUSE = Canonicalize(), Fuse()
PAIRED = ("bert-ts13-eager", "bert-ts17-sdpa", "bert-dynamo20-sdpa", "albert-ts14-sdpa", "electra-dynamo20-eager")
START, LENGTHS = 7, ((5, 6), (1, 3), (4, 1))  # tokens of question and passage of each row


def pairs(side: int | None = None) -> dict[str, Array]:
    """Rows of both texts one behind the other, or those of one side alone; padding has type 0."""
    rng = np.random.default_rng(0)
    texts = [[rng.integers(2, 19, length) for length in pair] for pair in LENGTHS]
    kinds = [[np.full(length, kind) for kind, length in enumerate(pair)] for pair in LENGTHS]
    rows = [np.concatenate(pair) if side is None else pair[side] for pair in texts]
    types = [np.concatenate(pair) if side is None else pair[side] for pair in kinds]
    length = max(map(len, rows))
    given = {"input_ids": rows, "attention_mask": [np.ones_like(row) for row in rows], "token_type_ids": types}
    return {name: np.stack([np.pad(row, (0, length - len(row))) for row in values]) for name, values in given.items()}


def shifted(model: Model, start: int) -> Model:
    """`model`, which numbers tokens from `start` on: its table of positions begins there."""
    moved = model.clone()
    name = str(moved.encoder.embeddings.position)
    table = moved.array(name)
    moved.replace(name, np.concatenate([table[start:], np.repeat(table[-1:], start, 0)]))
    return moved


@pytest.mark.parametrize("name", PAIRED)
@pytest.mark.parametrize("steps", [(CANONICAL,), (CANONICAL, FUSE)], ids=["as exported", "fused"])
@pytest.mark.parametrize("layers", [1, 2])
def test_states_below_the_cut_are_those_of_each_text_alone(name, steps, layers):
    """The passage's are those of a model whose positions begin at `start`, also beyond the last row of its table."""
    before = prepared(name, *steps)
    start = START if layers == 1 else 20  # of 23 rows
    model = before.clone()
    assert apply(Decouple(layers, start), model).count == layers
    stream = model.encoder.layers[layers].key.source
    (both,) = values_of(model, [stream], pairs())
    for side, source in ((0, before), (1, shifted(before, start))):
        (alone,) = values_of(source, [before.encoder.layers[layers].key.source], pairs(side))
        for row, lengths in enumerate(LENGTHS):
            first = sum(lengths[:side])
            found = both[row, first : first + lengths[side]]
            np.testing.assert_allclose(found, alone[row, : lengths[side]], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", PAIRED)
def test_a_text_alone_is_answered_as_before(name):
    before = prepared(name, CANONICAL, FUSE)
    model = before.clone()
    apply(Decouple(2, START), model)
    given = pairs(0)
    assert_same_answers(answers(model, [given])[0], answers(before, [given])[0], 1e-5)


@pytest.mark.parametrize("name", PAIRED)
def test_fuse_and_skip_mask_behind_it_keep_the_answers(name):
    """In the fused form both the mask and what keeps the texts apart are added."""
    model = prepared(name, CANONICAL)
    apply(Decouple(2, START), model)
    expected = answers(model, [pairs(), pairs(1)])
    for step in (FUSE, SkipMask(), Unpad()):
        apply(step, model)
        for ours, theirs in zip(answers(model, [pairs(), pairs(1)]), expected, strict=True):
            assert_same_answers(ours, theirs, 1e-5, f"{step}: ")


def test_without_layers_it_does_nothing_and_says_so():
    model = prepared("bert-ts17-sdpa", CANONICAL)
    before = model.fingerprint()
    assert apply(Decouple(0), model).note == "layers=0: every layer reads both texts"
    assert model.fingerprint() == before


@pytest.mark.parametrize(
    ("name", "steps", "reason"),
    [
        ("distilbert-ts17-sdpa", (), "the model takes no token types, which say where the second text begins"),
        ("roberta-ts17-sdpa", (), "the model takes no token types, which say where the second text begins"),
        ("bert-ts17-sdpa", (FUSE, Decouple()), "lower layers read the two texts apart already"),
        ("bert-ts17-sdpa", (FUSE, Unpad()), "the model is unpadded, .*; decouple before `unpad`"),
        ("bert-ts17-sdpa", (FixShapes(2, 5),), "no table of positions is looked up|not counted from 0 on"),
    ],
)
def test_what_it_leaves_alone(name, steps, reason):
    model = prepared(name, CANONICAL, *steps)
    before = model.fingerprint()
    done = apply(Decouple(), model)
    assert not done
    assert re.search(reason, done.note), done.note
    assert model.fingerprint() == before


def test_attention_that_is_not_proven_is_left_alone():
    model = causal(prepared("bert-ts17-sdpa", CANONICAL, FUSE))
    done = Decouple(2).apply(model, Context())
    assert (done.count, done.note.split(":")[0]) == (0, "attention of layers 0 to 1 is not proven")


@pytest.mark.parametrize(
    ("options", "refusal"),
    [
        ({"layers": -1}, "layers=-1 is less than 0"),
        ({"start": -1}, "start=-1 is less than 0"),
        ({"layers": 3}, "layers=3 of 3 leaves none that reads both texts; give fewer"),
        ({"start": 23}, "start=23 of 23 positions leaves none for a passage; give fewer"),
    ],
)
def test_it_refuses(options, refusal):
    with pytest.raises(PassError, match=f"^decouple: {refusal}$"):
        apply(Decouple(**options), prepared("bert-ts17-sdpa", CANONICAL))
