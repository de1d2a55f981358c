"""A decoupled model as two files answers as the one file does."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from graphs import fixture, prepared
from oracles import answers, assert_same_answers

from onnxslim_bert.cli import cli
from onnxslim_bert.errors import ModelError, OutputError, PassError
from onnxslim_bert.graph.files import file_sha256
from onnxslim_bert.job import split as module
from onnxslim_bert.job.split import JOINT, MANIFEST, PASSAGE, split
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.decouple import Decouple
from onnxslim_bert.passes.first_token import FirstToken
from onnxslim_bert.passes.fix_shapes import FixShapes
from onnxslim_bert.passes.float16 import Float16
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.passes.pack_weights import PackWeights
from onnxslim_bert.passes.quantize_dynamic import QuantizeDynamic
from onnxslim_bert.passes.quantize_static import QuantizeStatic
from onnxslim_bert.passes.skip_mask import SkipMask
from onnxslim_bert.passes.unpad import Unpad
from onnxslim_bert.rewriting.int8 import int8_matrices

CANONICAL, FUSE, APART = Canonicalize(), Fuse(), Decouple(2, 4)
PAIRED = ("bert-ts13-eager", "bert-ts17-sdpa", "bert-dynamo20-sdpa", "albert-ts14-sdpa", "electra-dynamo20-eager")


def written(tmp_path, name, *steps):
    """The file of a fixture after these steps."""
    path = tmp_path / "apart.onnx"
    prepared(name, CANONICAL, *steps).save(path)
    return path


def rows(lengths, kind):
    """Ids, mask and types [texts, tokens] of texts of these lengths, padded."""
    real = np.arange(max(lengths)) < np.array(lengths)[:, None]
    ids = np.random.default_rng([*lengths, kind]).integers(2, 19, real.shape)
    return np.where(real, ids, 0), real.astype(np.int64), real * kind


@pytest.mark.parametrize("name", PAIRED)
@pytest.mark.parametrize(
    "steps", [(FUSE, APART), (APART, FUSE, FirstToken(), SkipMask())], ids=["apart last", "apart first"]
)
@pytest.mark.parametrize(
    ("questions", "passages"), [((1,), (9,)), ((5, 3, 1), (2, 6, 4)), ((4, 4), (3, 3)), ((4,), (3, 9, 1))]
)
def test_two_files_answer_as_the_one_does(tmp_path, name, steps, questions, passages):
    """At every length, padded or not; and one question for three passages."""
    path = written(tmp_path, name, *steps)
    done = split(path, tmp_path / "two")
    passage, joint = (Model.load(tmp_path / "two" / file) for file in (PASSAGE, JOINT))
    assert (len(passage.encoder.layers), done.layers, done.hidden) == (2, 2, passage.encoder.hidden)
    assert all(layer.form is not None for layer in passage.encoder.layers)
    asked, read = rows(questions, 0), rows(passages, 1)
    names = dict(zip(("ids", "mask"), done.question, strict=True))
    (states,) = answers(passage, [{names["ids"]: read[0], names["mask"]: read[1]}])
    given = {names["ids"]: asked[0], names["mask"]: asked[1], done.states: states[done.states], str(done.mask): read[1]}
    (ours,) = answers(joint, [given])
    length = max(questions) + max(passages)
    pairs = np.zeros((3, len(passages), length), np.int64)
    for row, count in enumerate(passages):
        first = min(row, len(questions) - 1)
        for kind, (question, text) in enumerate(zip(asked, read, strict=True)):
            both = np.concatenate([question[first, : questions[first]], text[row, :count]])
            pairs[kind, row, : len(both)] = both
    whole = dict(zip(("input_ids", "attention_mask", "token_type_ids"), pairs, strict=True))
    assert_same_answers(ours, answers(Model.load(path), [whole])[0], 1e-5)


@pytest.mark.parametrize(
    ("name", "steps", "within"),
    [
        ("bert-nomask", (FUSE, Decouple()), 1e-5),
        ("bert-features", (FUSE, Decouple()), 1e-5),
        ("bert-mlm", (FUSE, Decouple()), 1e-5),
        ("bert-dynamo20-sdpa", (APART,), 1e-5),
        ("bert-ts17-sdpa", (FUSE, APART, QuantizeStatic()), 5e-2),
        ("bert-ts17-sdpa", (FUSE, APART, QuantizeDynamic()), 5e-2),
        ("bert-ts17-sdpa", (FUSE, APART, Float16()), 2e-2),
    ],
)
def test_of_other_forms_too(tmp_path, name, steps, within):
    done = split(written(tmp_path, name, *steps), tmp_path / "two")
    assert done.difference <= within


def test_weights_in_fewer_bits_are_split_as_int8(tmp_path, monkeypatch):
    monkeypatch.setattr(int8_matrices, "FEWEST", 16)
    packed = PackWeights((4,), 16, "nearest")
    done = split(written(tmp_path, "bert-ts17-sdpa", FUSE, APART, QuantizeStatic(), packed), tmp_path / "two")
    assert done.difference <= 5e-2


def test_weights_that_layers_share_are_stored_once(tmp_path):
    path = written(tmp_path, "albert-ts14-sdpa", FUSE, APART)
    split(path, tmp_path / "two")
    assert (tmp_path / "two" / JOINT).stat().st_size < 1.2 * path.stat().st_size


def test_the_manifest_says_what_the_folder_holds(tmp_path):
    path = written(tmp_path, "bert-ts17-sdpa", FUSE, APART)
    ran = CliRunner().invoke(cli, ["split", str(path), "-o", str(tmp_path / "two"), "--json"])
    assert ran.exit_code == 0, ran.output
    manifest = json.loads((tmp_path / "two" / MANIFEST).read_text())
    assert json.loads(ran.stdout) == manifest
    assert manifest["sha256"] == file_sha256(path)
    assert manifest["files"] == {name: file_sha256(tmp_path / "two" / name) for name in (PASSAGE, JOINT)}
    assert sorted(file.name for file in (tmp_path / "two").iterdir()) == sorted([PASSAGE, JOINT, MANIFEST])


def test_the_command_says_what_takes_what(tmp_path):
    path = written(tmp_path, "bert-ts17-sdpa", FUSE, APART)
    ran = CliRunner().invoke(cli, ["split", str(path), "-o", str(tmp_path / "two")])
    first, second, third = ran.stdout.splitlines()
    assert first.endswith("passage.onnx: input_ids, attention_mask -> passage_states [passages, passage, 12]")
    assert second.endswith("joint.onnx: input_ids, attention_mask, passage_states, passage_mask -> logits")
    assert third.startswith("2 layers run once a passage; answers within ")


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        ((FUSE,), "no layers read the two texts of a pair apart; run `slim -p decouple` first"),
        ((FUSE, APART, Unpad()), "a batch is no longer rows of tokens; split the model before `unpad`"),
        ((FUSE, APART, FixShapes(2, 9)), "the inputs have fixed shapes, .*; split before `fix-shapes`"),
        ((APART,), "node .* needs above the cut, reads 'token_type_ids'; run `fuse` before"),
    ],
)
def test_what_cannot_be_split_is_refused_and_nothing_is_written(tmp_path, steps, reason):
    path = written(tmp_path, "bert-ts17-sdpa", *steps)
    with pytest.raises(PassError, match=f"^{path}: {reason}"):
        split(path, tmp_path / "two")
    assert list(tmp_path.iterdir()) == [path]


def test_files_that_answer_otherwise_are_not_written(tmp_path, monkeypatch):
    path = written(tmp_path, "bert-ts17-sdpa", FUSE, APART)
    parts = module.pair_parts

    def wrong(model):
        made = parts(model)
        bias = str(made.passage.encoder.layers[0].up.bias)
        made.passage.replace(bias, made.passage.array(bias) + 1)
        return made

    monkeypatch.setattr(module, "pair_parts", wrong)
    with pytest.raises(ModelError, match=r"the two files answer .* of the largest apart; needed 0\.0001"):
        split(path, tmp_path / "two")
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_exists_is_not_touched(tmp_path):
    with pytest.raises(OutputError, match="exists; give another folder"):
        split(fixture("bert-ts17-sdpa"), tmp_path)
