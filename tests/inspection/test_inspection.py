"""What `onnxslim inspect` says of a file is what the file is."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from graphs import FAMILIES, apply, fixture, prepared, shared_graph
from inspected import costs, inspected

from onnxslim_bert.cli import main
from onnxslim_bert.errors import ModelError
from onnxslim_bert.graph.edit import Builder
from onnxslim_bert.inspection.describe import describe
from onnxslim_bert.inspection.encoder_facts import Table
from onnxslim_bert.inspection.inspection import Inspection, inspect
from onnxslim_bert.job.split import split
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.recipes.provenance import Provenance, stamp
from onnxslim_bert.recipes.recipe import Recipe
from onnxslim_bert.rewriting.int8 import int8_matrices

GOLDEN = Path(__file__).parent / "golden"
DESCRIBED = (
    *("bert-ts13-eager", "roberta-ts17-sdpa", "distilbert-dynamo20-sdpa", "albert-ts14-sdpa"),
    *("electra-dynamo18-sdpa", "prenorm-dynamo18-eager", "bert-dynamo23-sdpa", "bert-mlm", "fused-attention"),
    *("quantized-dynamic", "quantized-qdq", "decoder-ts17"),
)
NO_ENCODERS = {"mlp": "no self-attention", "cnn": "no self-attention"}


@pytest.mark.parametrize("name", DESCRIBED)
def test_the_text_is_the_reviewed_one(name, request):
    """tests/golden holds it; `pytest --regen` writes it anew."""
    path, text = GOLDEN / f"{name}.txt", describe(inspect(fixture(name))) + "\n"
    if request.config.getoption("--regen"):
        path.write_text(text)
    assert text == path.read_text()


def test_every_golden_text_is_tested():
    assert {path.stem for path in GOLDEN.glob("*.txt")} == set(DESCRIBED)


# the encoder


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("export", ["ts13-eager", "ts17-sdpa", "dynamo20-eager"])
def test_sizes_norms_and_activation_are_recognised(family, export):
    """One family normalizes first."""
    facts = inspected(f"{family}-{export}").facts
    assert (facts.layers, facts.hidden, facts.heads, facts.head_width) == (3, 12, (3, 3, 3), (4, 4, 4))
    assert facts.norm == ("pre-norm" if family == "prenorm" else "post-norm")
    assert (facts.activation, facts.mask, facts.first_token) == ("gelu", "attention_mask", False)
    assert facts.tables["position"] == Table(23, 10 if family in ("albert", "electra") else 12, "float32")


def test_uneven_layers_are_told_apart(tmp_path):
    """One layer lost 7 neurons."""
    model = prepared("bert-ts17-eager", Canonicalize())
    up, down = (model.encoder.layers[1].linears[role] for role in ("up", "down"))
    model.replace(up.weight, model.array(up.weight)[:, 7:])
    model.replace(str(up.bias), model.array(str(up.bias))[7:])
    model.replace(down.weight, model.array(down.weight)[7:])
    model.save(tmp_path / "m.onnx")
    found = inspect(tmp_path / "m.onnx")
    assert found.encoder is not None
    assert found.encoder.facts.feed_forward == (20, 13, 20)
    assert "feed-forward        20 | 13 | 20" in describe(found)


def test_albert_shares_every_matrix_across_its_layers():
    """Six matrices, each stored once for three layers."""
    shared = inspected("albert-dynamo18-eager").shared
    roles = ("query", "key", "value", "output", "up", "down")
    uses = [[(use.role, use.layer) for use in group.uses] for group in shared]
    assert uses == [[(role, layer) for layer in range(3)] for role in roles]
    assert {group.copies for group in shared} == {1}


@pytest.mark.parametrize(("name", "copies"), [("bert-mlm", 2), ("bert-mlm-tied", 1)])
def test_a_head_that_holds_the_words_transposed_shares_them(name, copies):
    (group,) = inspected(name).shared
    assert [use.role for use in group.uses] == ["word", "head"]
    assert group.copies == copies


def test_weights_are_counted_by_type():
    """What ONNX Runtime quantized: every matrix, and the tables unsigned."""
    facts = inspected("quantized-dynamic").facts
    assert (facts.encoder_dtypes, facts.head_dtypes) == ({"int8": 18}, {"int8": 2})
    assert facts.tables["word"] == Table(37, 12, "uint8")


def slimmed(folder: Path, recipe: str) -> Inspection:
    """A BERT that `recipe` has rewritten and signed."""
    source = fixture("bert-dynamo18-eager")
    model = Model.load(source)
    for step in Recipe.parse(recipe).steps:
        apply(step.action, model)
    stamp(model, Provenance.of(source, "ab", recipe, None))
    model.save(folder / "m.onnx")
    return inspect(folder / "m.onnx")


@pytest.mark.parametrize("bits", [4, 3, 2])
def test_packed_weights_are_counted_as_they_are_stored(tmp_path, monkeypatch, bits):
    """Bits, parameters and bytes: those of the file, not of the int8 matrices that it becomes."""
    monkeypatch.setattr(int8_matrices, "FEWEST", 16)
    found = slimmed(tmp_path, f"canonicalize?,fuse,first-token,quantize-static,pack-weights{{bits={bits},block=16}}")
    (int8 := tmp_path / "int8").mkdir()
    before = slimmed(int8, "canonicalize?,fuse,first-token,quantize-static")
    assert found.encoder is not None
    assert before.encoder is not None
    ours, theirs = found.encoder, before.encoder
    assert ours.facts.encoder_dtypes == {f"int8 in {bits} bits": 18}
    assert [cost.parameters for cost in ours.costs] == [cost.parameters for cost in theirs.costs]
    assert any(text.startswith(f"18 weights stored as int8 in {bits} bits") for text in ours.problems)
    stored = sum(values.values.nbytes for values in Model.load(tmp_path / "m.onnx").constants().values())
    counted = sum(cost.nbytes for cost in ours.costs)
    assert counted == pytest.approx(stored, rel=0.03)  # shapes that folding leaves out
    assert f"encoder 18 int8 in {bits} bits" in describe(found)


@pytest.mark.parametrize("step", ["{block=8}", "{bits=3,block=8}", "{bits=2,block=8}", "{bits=2,codebook=product}"])
def test_packed_words_are_as_many_as_they_stand_for(tmp_path, step):
    """37 words of 12 entries, whatever bytes they lie in."""
    found = slimmed(tmp_path, f"canonicalize?,fuse,quantize-embedding{step}")
    assert found.encoder is not None
    (part,) = (cost for cost in found.encoder.costs if cost.part == "embeddings")
    (whole,) = (cost for cost in inspected("bert-dynamo18-eager").costs if cost.part == "embeddings")
    assert part.parameters == whole.parameters
    table = found.encoder.facts.tables["word"]
    assert (table.rows, table.dtype) == (37, "uint8")
    assert table.bits is not None
    assert f"37 words in {table.bits:g} bits" in describe(found)


def test_words_of_a_byte_an_entry_are_not_packed(tmp_path):
    """As onnxruntime's static quantizer writes them: a uint8 table that is made float before its rows are looked up."""
    model = prepared("bert-dynamo18-eager", Canonicalize(), Fuse())
    tensors, build = model.graph.tensors(), Builder(model.graph, "")
    word = tensors[model.encoder.embeddings.word]
    (reader,) = word.outputs
    levels = [
        build.constant("words", np.full(word.values.shape, 7, np.uint8)),
        build.constant("scale", np.float32(0.1)),
    ]
    reader.inputs[0] = build.node("DequantizeLinear", "words", levels)
    model.changed()
    model.save(tmp_path / "m.onnx")
    found = inspect(tmp_path / "m.onnx")
    assert found.encoder is not None
    assert found.encoder.facts.tables["word"] == Table(37, 12, "uint8", None)
    assert costs(found.encoder, "parameters") == costs(inspected("bert-dynamo18-eager"), "parameters")


def test_a_decoupled_model_and_its_parts_say_what_they_are(tmp_path):
    found = slimmed(tmp_path, "canonicalize?,fuse,decouple{layers=2}")
    assert found.encoder is not None
    assert (found.encoder.facts.apart, found.encoder.facts.part) == (2, "")
    assert "pairs               layers 0 to 1 read the two texts apart" in describe(found)
    split(tmp_path / "m.onnx", tmp_path / "two")
    for part, said in (("passage", "the passage encoder of a model"), ("joint", "the joint part of a model")):
        file = inspect(tmp_path / "two" / f"{part}.onnx")
        assert file.encoder is not None
        assert (file.encoder.facts.apart, file.encoder.facts.part) == (0, part)
        assert said in describe(file)


@pytest.mark.parametrize("form", ["contrib", "qdq"])
@pytest.mark.parametrize("mode", ["static", "dynamic"])
def test_our_int8_files_are_read_again(tmp_path, form, mode):
    """The same parameters, as integers, and nothing left to do to them."""
    found = slimmed(tmp_path, f"canonicalize?,fuse,first-token,smooth,quantize-{mode}{{format={form}}},skip-mask")
    assert found.encoder is not None
    facts = found.encoder.facts
    assert costs(found.encoder, "parameters") == costs(inspected("bert-dynamo18-eager"), "parameters")
    assert (facts.encoder_dtypes, {table.dtype for table in facts.tables.values()}) == ({"int8": 18}, {"int8"})
    assert (facts.mask, facts.first_token, facts.activation) == ("attention_mask", True, "gelu")
    left = {advice.name for advice in found.encoder.passes if advice.applies}
    assert left <= {"canonicalize", "unpad", "float16", "early-exit"}
    assert "slimmed by          onnxslim-bert" in describe(found)
    assert found.file.producer.exporter == "torch.export"


@pytest.mark.parametrize(
    ("name", "opset", "exporter"),
    [
        ("optimum_tiny_bert_seqcls_pt110_opset11", 11, "TorchScript"),
        ("vespa_dummy_bert_pt17_opset12", 12, "TorchScript"),
        ("attn_distilbert_opset12", 12, ""),
        ("ortfused_attention_mha", 16, ""),
    ],
)
def test_graphs_of_others_are_read(name, opset, exporter):
    found = inspect(shared_graph(name))
    assert (found.file.opsets["ai.onnx"], found.file.producer.exporter) == (opset, exporter)
    assert found.encoder is not None
    assert set(found.encoder.facts.heads) == {2}


def test_the_file_is_only_read(tmp_path):
    """The same bytes, and nothing beside it."""
    path = Path(shutil.copy(fixture("bert-ts13-eager"), tmp_path / "m.onnx"))
    inspect(path)
    assert path.read_bytes() == fixture("bert-ts13-eager").read_bytes()
    assert list(tmp_path.iterdir()) == [path]


# the command


def run(*arguments: str | Path) -> int:
    """The exit code of `onnxslim inspect`."""
    try:
        main(["inspect", *map(str, arguments)])
    except SystemExit as left:
        return int(left.code or 0)
    return 0


def test_the_command_prints_the_description(capsys):
    path = fixture("bert-ts17-sdpa")
    assert run(path) == 0
    assert capsys.readouterr() == (describe(inspect(path)) + "\n", "")


def test_options_reach_the_counts_and_the_hash(capsys):
    path = fixture("bert-ts17-sdpa")
    assert run(path, "--batch", "3", "--seq", "7", "--sha256") == 0
    out = capsys.readouterr().out
    assert "(batch 3, 7 tokens)" in out
    assert f"sha256              {inspect(path, sha256=True).file.sha256}\n" in out


def test_json_is_one_document_of_everything(capsys):
    """With the keys of each level, in types that JSON keeps."""
    path = fixture("albert-ts13-eager")
    assert run(path, "--json") == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert err == ""
    assert set(document) == {"onnxslim_bert", "file", "batch", "seq", "encoder", "reason"}
    assert set(document["encoder"]) == {"facts", "costs", "shared", "problems", "passes"}
    assert document["file"]["inputs"][0] == {"name": "input_ids", "dtype": "int64", "axes": ["batch", "sequence"]}
    assert document["encoder"]["facts"]["tables"]["word"] == {"rows": 37, "width": 10, "dtype": "float32", "bits": None}
    assert document["encoder"]["shared"][0]["uses"][2] == {"role": "query", "layer": 2}
    assert {tuple(cost) for cost in document["encoder"]["costs"]} == {("part", "parameters", "nbytes", "flops")}
    del document["onnxslim_bert"]
    assert document == json.loads(json.dumps(dataclasses.asdict(inspect(path))))


@pytest.mark.parametrize("name", NO_ENCODERS)
@pytest.mark.parametrize("options", [(), ("--json",)])
def test_what_is_no_encoder_is_described_and_refused(name, options, capsys):
    """The facts on stdout, one line on stderr, exit code 2."""
    path = fixture(name)
    assert run(path, *options) == 2
    out, err = capsys.readouterr()
    assert NO_ENCODERS[name] in err
    assert (err.count("\n"), err.count(str(path))) == (1, 1)
    if options:
        document = json.loads(out)
        assert (document["encoder"], document["file"]["producer"]["name"]) == (None, "pytorch")
        assert document["reason"] in err
    else:
        assert "made by             pytorch" in out
        assert "encoder             none: " in out


@pytest.mark.parametrize("data", [b"", b"\xff\x07 not a model", None], ids=["empty", "random", "truncated"])
def test_what_is_no_onnx_file_is_refused(data, tmp_path, capsys):
    """Nothing on stdout, one line on stderr, exit code 2."""
    path = tmp_path / "m.onnx"
    path.write_bytes(fixture("bert-ts17-eager").read_bytes()[:-1000] if data is None else data)
    assert run(path) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n"), err.count(str(path))) == ("", 1, 1)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ModelError, match="no such file"):
        inspect(tmp_path / "m.onnx")
