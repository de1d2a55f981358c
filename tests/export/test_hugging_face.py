"""Export from Hugging Face folders, with tiny models made here."""

import json
from pathlib import Path

import click.testing
import numpy as np
import onnx
import pytest
from command_line import contents, run, write_tokenizer

from onnxslim_bert.errors import ModelError, OutputError

torch = pytest.importorskip("torch", reason="export needs the [export] extra: torch is not installed")
pytest.importorskip("onnxscript", reason="export needs the [export] extra: onnxscript is not installed")

import transformers  # noqa: E402

from onnxslim_bert.cli.export import export  # noqa: E402
from onnxslim_bert.export.hugging_face import ROWS, example_feeds, export_encoder  # noqa: E402
from onnxslim_bert.export.torch_export import export_module  # noqa: E402
from onnxslim_bert.graph.sessions import open_session  # noqa: E402

SIZES = {
    "vocab_size": 37,
    "hidden_size": 12,
    "num_hidden_layers": 1,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "max_position_embeddings": 23,
}
EXPORTS = [
    (exporter, opset, attention)
    for exporter, opset in (("torchscript", 13), ("torchscript", 17), ("dynamo", 18), ("dynamo", 20))
    for attention in ("eager", "sdpa")
    if (opset, attention) != (13, "sdpa")
]


def make_folder(path: Path, name: str = "BertForSequenceClassification", **options: object) -> Path:
    """A Hugging Face folder with a random model of class `name` and a tokenizer's files."""
    torch.manual_seed(7)
    model = getattr(transformers, name)
    model(model.config_class(**SIZES, **options)).save_pretrained(path)
    (path / "tokenizer.json").write_text("{}")
    (path / "vocab.txt").write_text("[PAD]\n")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A BERT classifier of three labels."""
    return make_folder(tmp_path / "bert", num_labels=3)


def inputs_of(path: Path) -> list[str]:
    return [node.name for node in open_session(path).get_inputs()]


@pytest.mark.parametrize(("exporter", "opset", "attention"), EXPORTS)
def test_an_export_takes_any_batch_and_length(folder, tmp_path, exporter, opset, attention):
    """Both exporters, both attentions: dynamic axes, the opset asked for, logits as torch gives them."""
    path = export_encoder(folder, tmp_path / "m.onnx", exporter=exporter, attention=attention, opset=opset)

    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    feeds = example_feeds(model, (5, 13))
    with torch.no_grad():
        want = model(**{name: torch.from_numpy(values) for name, values in feeds.items()}).logits.numpy()
    session = open_session(path)
    found = np.asarray(session.run(["logits"], feeds)[0])
    np.testing.assert_allclose(found, want, atol=1e-5)
    assert [node.shape for node in session.get_inputs()] == [["batch", "sequence"]] * 3
    assert onnx.load(path).opset_import[0].version == opset


@pytest.mark.parametrize(
    ("name", "outputs"),
    [
        ("BertModel", ["last_hidden_state"]),
        ("BertForPreTraining", ["last_hidden_state"]),
        ("BertForMaskedLM", ["logits"]),
        ("BertForTokenClassification", ["logits"]),
        ("BertForQuestionAnswering", ["start_logits", "end_logits"]),
    ],
)
def test_the_architecture_decides_the_outputs(tmp_path, name, outputs):
    """The head that the folder's model has is the head of the export."""
    path = export_encoder(make_folder(tmp_path / "hf", name), tmp_path / "m.onnx", exporter="torchscript")
    nodes = open_session(path).get_outputs()
    assert [node.name for node in nodes] == outputs
    assert all(node.shape[:2] == ["batch", "sequence"] for node in nodes)


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_a_model_that_chooses_takes_any_number_of_choices(tmp_path, exporter):
    """[batch, choices, sequence], each of them open; a score for each choice, as torch gives it."""
    source = make_folder(tmp_path / "hf", "BertForMultipleChoice")
    session = open_session(export_encoder(source, tmp_path / "m.onnx", exporter=exporter))
    model = transformers.AutoModelForMultipleChoice.from_pretrained(source).eval()
    feeds = example_feeds(model, (3, 5, 7))
    with torch.no_grad():
        want = model(**{name: torch.from_numpy(values) for name, values in feeds.items()}).logits.numpy()
    assert want.shape == (3, 5)
    np.testing.assert_allclose(session.run(["logits"], feeds)[0], want, atol=1e-5)
    assert [node.shape for node in session.get_inputs()] == [["batch", "choices", "sequence"]] * 3


def test_a_model_with_one_token_type_gets_no_such_input(tmp_path):
    """RoBERTa accepts token_type_ids, and its tokenizer does not make them."""
    source = make_folder(tmp_path / "hf", "RobertaForSequenceClassification", type_vocab_size=1)
    assert inputs_of(export_encoder(source, tmp_path / "m.onnx")) == ["input_ids", "attention_mask"]


def test_the_file_holds_no_metadata(folder, tmp_path):
    """torch.export would write stack traces with the paths of this machine."""
    content = export_encoder(folder, tmp_path / "m.onnx").read_bytes()
    assert b"stack_trace" not in content
    assert b".py" not in content


def test_the_same_model_gives_the_same_bytes(folder, tmp_path):
    """Exports can be compared by hash."""
    first, second = (export_encoder(folder, tmp_path / name) for name in ("a.onnx", "b.onnx"))
    assert first.read_bytes() == second.read_bytes()


def test_tokenizer_files_are_copied_beside(folder, tmp_path):
    """What the tokenizer needs goes along, and nothing else appears."""
    (tmp_path / "out").mkdir()
    export_encoder(folder, tmp_path / "out" / "m.onnx", exporter="torchscript")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["m.onnx", "tokenizer.json", "vocab.txt"]


def test_an_existing_file_is_kept(folder, tmp_path):
    """Unless asked, neither the model nor another model's tokenizer is replaced."""
    output = tmp_path / "m.onnx"
    output.write_text("mine")
    with pytest.raises(OutputError, match="exists"):
        export_encoder(folder, output)
    (tmp_path / "vocab.txt").write_text("another")
    with pytest.raises(OutputError, match=r"vocab\.txt exists and differs"):
        export_encoder(folder, tmp_path / "other.onnx")
    assert output.read_text() == "mine"

    export_encoder(folder, output, exporter="torchscript", overwrite=True)
    assert (tmp_path / "vocab.txt").read_text() == "[PAD]\n"


def test_an_export_that_disagrees_with_torch_is_not_written(tmp_path):
    """A trace that froze a decision on the data is found out by inputs of other sizes."""

    class Frozen(torch.nn.Module):
        def forward(self, values):
            return values / values.shape[0] if values.shape[0] > 2 else values

    traced, other = ({"values": np.ones((batch, 4), np.float32)} for batch in (2, 3))
    axes = {"values": ROWS, "out": ROWS}
    with pytest.raises(ModelError, match=r"differs from torch in 'out' on inputs of shape \(3, 4\)"):
        export_module(Frozen(), tmp_path / "m.onnx", traced, [other], axes, exporter="torchscript")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"exporter": "torchscript", "opset": 13}, "needs opset 14"),
        ({"exporter": "torchscript", "opset": 99}, "opset 99 failed"),
        ({"exporter": "dynamo", "opset": 12}, "wrote opset 18 when asked for 12"),
    ],
)
def test_an_opset_that_cannot_be_is_refused(folder, tmp_path, options, message):
    """Never another opset than the one asked for."""
    with pytest.raises(ModelError, match=message):
        export_encoder(folder, tmp_path / "m.onnx", **options)
    assert not (tmp_path / "m.onnx").exists()


@pytest.mark.parametrize("kept", [0, 40, -500])
def test_weights_that_are_cut_off_are_refused(folder, tmp_path, kept):
    """safetensors' own error is no base of others; the name of the folder, and what it says, are in ours."""
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:kept])
    with pytest.raises(ModelError, match=r"bert: cannot load the model: .*header"):
        export_encoder(folder, tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()


def test_a_folder_whose_name_is_not_utf8_is_refused(folder, tmp_path):
    """safetensors takes no other names; the output may have one."""
    export_encoder(folder, tmp_path / "odd\udcff.onnx")
    with pytest.raises(ModelError, match="is not UTF-8, as safetensors needs it: give another name"):
        export_encoder(folder.rename(tmp_path / "odd\udcff"), tmp_path / "m.onnx")


def test_a_source_that_is_no_model_is_refused(folder, tmp_path):
    """No folder, a folder without a model, and a head that is not supported, each by name."""
    output = tmp_path / "m.onnx"
    with pytest.raises(ModelError, match="neither a folder nor the id"):
        export_encoder(tmp_path / "nothing", output)
    with pytest.raises(ModelError, match="cannot load the model"):
        export_encoder(tmp_path, output)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["BertForNextSentencePrediction"]}))
    with pytest.raises(ModelError, match="cannot export BertForNextSentencePrediction"):
        export_encoder(folder, output)


def test_a_model_without_sdpa_is_exported_with_eager_attention(tmp_path):
    """transformers has only eager attention for some encoders; SDPA that is asked for all the same is refused."""
    source = make_folder(tmp_path / "hf", "MPNetForSequenceClassification")
    with pytest.raises(ModelError, match="use eager"):
        export_encoder(source, tmp_path / "m.onnx", attention="sdpa")
    assert export_encoder(source, tmp_path / "m.onnx").exists()


def test_a_folder_that_cannot_be_written_is_named(folder, tmp_path):
    """One line, and nothing left behind."""
    with pytest.raises(OutputError, match=r"no folder .*missing; make it first"):
        export_encoder(folder, tmp_path / "missing" / "m.onnx", exporter="torchscript")


def test_the_command_exports_quietly(folder, tmp_path, capfd):
    """One line on stdout, none of the exporters' chatter."""
    output = tmp_path / "m.onnx"
    result = click.testing.CliRunner().invoke(export, [str(folder), "-o", str(output)], catch_exceptions=False)
    assert result.exit_code == 0
    assert result.output.startswith(f"{output}: ")
    assert capfd.readouterr() == ("", "")


def test_weights_that_are_missing_are_an_error(tmp_path):
    """A folder whose configuration names a head that was never saved: its weights would be random."""
    folder = make_folder(tmp_path / "bert", "BertModel")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["BertForMaskedLM"]}))
    with pytest.raises(ModelError, match=r"config.json names BertForMaskedLM, and the files lack \d+ of its weights"):
        export_encoder(folder, tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()


POOLED = {
    "mean_tokens": lambda states, real: (states * real).sum(axis=1) / real.sum(axis=1),
    "cls_token": lambda states, real: states[:, 0],
    "max_tokens": lambda states, real: np.where(real, states, -np.inf).max(axis=1),
    "lasttoken": lambda states, real: np.stack([s[int(r.sum()) - 1] for s, r in zip(states, real, strict=True)]),
}


def sentence_folder(path: Path, pooling: str, *more: str) -> Path:
    """A folder as sentence-transformers writes it, whose configuration still names a masked language model."""
    folder = make_folder(path, "BertModel")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["BertForMaskedLM"]}))
    kinds = ["Transformer", "Pooling", *more]
    paths = ["", *(f"{place}_{kind}" for place, kind in enumerate(kinds[1:], start=1))]
    modules = [{"path": p, "type": f"sentence_transformers.models.{k}"} for p, k in zip(paths, kinds, strict=True)]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({f"pooling_mode_{pooling}": True}))
    return folder


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
@pytest.mark.parametrize("pooling", POOLED)
def test_a_sentence_transformers_folder_is_exported_with_its_pooling(tmp_path, pooling, exporter):
    """Not as the masked language model that its configuration still names; padding is not pooled."""
    folder = sentence_folder(tmp_path / "st", pooling, "Normalize")
    session = open_session(export_encoder(folder, tmp_path / "m.onnx", exporter=exporter))
    feeds = {name: np.ones((2, 5), np.int64) for name in ("input_ids", "attention_mask")}
    feeds |= {"token_type_ids": np.zeros((2, 5), np.int64)}
    feeds["input_ids"] = np.arange(2, 12).reshape(2, 5)
    feeds["attention_mask"][1, 3:] = 0
    states, vectors = session.run(["last_hidden_state", "sentence_embedding"], feeds)
    expected = POOLED[pooling](states, feeds["attention_mask"][:, :, None])
    np.testing.assert_allclose(vectors, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-5)


def test_a_cross_encoder_keeps_its_head(tmp_path):
    """sentence-transformers 5 lists its Transformer in modules.json, too, and nothing behind it."""
    folder = make_folder(tmp_path / "ce", num_labels=1)
    modules = [{"path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"}]
    (folder / "modules.json").write_text(json.dumps(modules))
    made = export_encoder(folder, tmp_path / "m.onnx", exporter="torchscript", attention="eager")
    outputs = [(output.name, output.shape[1]) for output in open_session(made).get_outputs()]
    assert outputs == [("logits", 1)]


def test_a_module_that_is_not_known_is_refused(tmp_path):
    folder = sentence_folder(tmp_path / "st", "mean_tokens", "LSTM")
    with pytest.raises(ModelError, match=r"names 'sentence_transformers\.models\.LSTM': only Transformer, Pooling"):
        export_encoder(folder, tmp_path / "m.onnx")


@pytest.mark.parametrize("asked", ["eager", "sdpa", None])
def test_the_attention_that_the_configuration_asks_for_is_taken_and_said(folder, tmp_path, asked):
    """The file is the one that --attention gives."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | ({"attn_implementation": asked} if asked else {})))
    result = click.testing.CliRunner().invoke(export, [str(folder), "-o", str(tmp_path / "m.onnx")])
    assert result.exit_code == 0, result.output
    assert (f"attention: {asked}, as config.json asks" in result.output) is (asked is not None)
    explicit = export_encoder(folder, tmp_path / "n.onnx", attention=asked or "sdpa")
    assert (tmp_path / "m.onnx").read_bytes() == explicit.read_bytes()


def test_a_folder_without_onnx_is_exported_on_its_way(tmp_path):
    """`slim FOLDER` writes the folder that it writes of the exported file; the weights of PyTorch stay behind."""
    folder = sentence_folder(tmp_path / "st", "mean_tokens")
    write_tokenizer(folder)
    (folder / "vocab.txt").unlink()
    before = contents(folder)
    done = run("slim", folder, "-p", "canonicalize?,fuse", "-o", tmp_path / "out")
    assert done.code == 0, done
    assert contents(folder) == before
    written = {name for name, what in contents(tmp_path / "out").items() if what != "folder"}
    names = {"config.json", "tokenizer.json", "modules.json", "1_Pooling/config.json", "README.md"}
    assert written == names | {"onnx/model_quantized.onnx"}
    assert "model.safetensors (--keep-weights" in done.out
    path = export_encoder(folder, tmp_path / "m.onnx")
    assert run("slim", path, "-p", "canonicalize?,fuse", "-o", tmp_path / "m.fused.onnx").code == 0
    feeds = {name: np.ones((2, 5), np.int64) for name in inputs_of(path)}
    ours, theirs = (open_session(each).run(None, feeds) for each in (tmp_path / "out/onnx/model_quantized.onnx", path))
    for found, wanted in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5)
