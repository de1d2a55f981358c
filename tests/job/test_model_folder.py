"""Folders in, folders out: what is written, what is left as it was, and what is refused before any work."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import yaml
from command_line import assert_refused, contents, run
from sentence_folder import sentence_folder, texts

from onnxslim_bert.cli.folder_options import LAYOUTS as OFFERED
from onnxslim_bert.job.folder_files import LAYOUTS, model_place

KEPT = (
    *("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "modules.json"),
    *("1_Pooling/config.json", "2_Dense/model.safetensors", "LICENSE", ".gitattributes"),
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A sentence-transformers folder with onnx/model.onnx."""
    (tmp_path / "tiny").mkdir()
    return sentence_folder(tmp_path / "tiny")


def quantize(source: Path, *options: object, data: bool = False) -> object:
    calibration, evaluation = texts(source.parent)
    more = ["--data", evaluation] if data else []
    return run("quantize", source, "--calib", calibration, *more, "--method", "minmax", *options)


def test_a_folder_becomes_a_folder_with_every_file_and_a_card(source: Path, tmp_path: Path) -> None:
    """All files but weights are the source's, the model is that of the file alone, and the source is as it was."""
    before = contents(source)
    done = quantize(source, "-o", tmp_path / "out", data=True)
    assert done.code == 0, done
    after = contents(tmp_path / "out")
    assert contents(source) == before
    assert {name: after[name] for name in KEPT} == {name: before[name] for name in KEPT}
    written = {name for name, what in after.items() if what != "folder"}
    assert written - set(before) == {"onnx/model_quantized.onnx", "onnx/model_quantized.json"}
    assert set(before) - set(after) == {".git", ".git/HEAD", "model.safetensors", "onnx/model.onnx"}
    assert "model.safetensors, onnx/model.onnx (--keep-weights" in done.out
    assert f"{tmp_path}/out/onnx/model_quantized.onnx: size" in done.out
    report = json.loads((tmp_path / "out/onnx/model_quantized.json").read_text())
    assert report["output"] == str(tmp_path / "out/onnx/model_quantized.onnx")
    assert report["source"] == str(source / "onnx/model.onnx")
    alone = quantize(source / "onnx/model.onnx", "-o", tmp_path / "alone.onnx", data=True)
    assert alone.code == 0, alone
    assert (tmp_path / "alone.onnx").read_bytes() == (tmp_path / "out/onnx/model_quantized.onnx").read_bytes()


def test_the_card_keeps_what_it_said_and_adds_what_was_measured(source: Path, tmp_path: Path) -> None:
    """The author's text and metadata stay; the table, the hub's metadata and its older results are there."""
    assert quantize(source, "-o", tmp_path / "out", data=True).code == 0
    card = (tmp_path / "out/README.md").read_text()
    _, front, text = card.split("---\n", 2)
    metadata = yaml.safe_load(front)
    assert metadata["license"] == "mit"
    assert metadata["tags"] == ["sentence-transformers", "onnx", "onnxslim-bert"]
    assert metadata["model-index"][0]["results"][0]["dataset"]["name"] == "Other"
    assert "# Tiny\n\nWhat its author wrote | of it.\n" in text
    assert "| cosine, mean and least |" in text
    assert "| size | " in text


@pytest.mark.parametrize(
    ("layout", "name", "place"),
    [
        (None, None, "onnx/model_quantized.onnx"),
        ("transformers.js", None, "onnx/model_quantized.onnx"),
        ("sentence-transformers", None, "onnx/model.onnx"),
        ("optimum", None, "model_quantized.onnx"),
        ("fastembed", None, "model_optimized.onnx"),
        ("vespa", None, "model.onnx"),
        (None, "model_qint8_avx512_vnni.onnx", "onnx/model_qint8_avx512_vnni.onnx"),
        ("optimum", "m.onnx", "m.onnx"),
        ("optimum", "sub/m.onnx", "sub/m.onnx"),
    ],
)
def test_every_layout_and_name_has_its_place(layout, name, place):
    assert str(model_place(layout, name)) == place
    assert list(LAYOUTS) == OFFERED


def test_the_file_opens_in_its_place(source: Path, tmp_path: Path) -> None:
    """At the root, with weights kept in a file beside the source's, which stay behind."""
    model = onnx.load(source / "onnx/model.onnx")
    onnx.save(model, source / "onnx/model.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    out = tmp_path / "out"
    assert run("slim", source, "-p", "canonicalize?,fuse", "-o", out, "--layout", "optimum").code == 0
    feeds = dict.fromkeys(("input_ids", "attention_mask", "token_type_ids"), np.ones((1, 4), np.int64))
    assert ort.InferenceSession(str(out / "model_quantized.onnx")).run(None, feeds)[0].shape == (1, 4, 12)
    assert list(out.rglob("*.onnx")) == [out / "model_quantized.onnx"]
    assert not list(out.rglob("w.bin"))


def test_the_current_folder_is_a_folder(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`slim . -o .` adds the model to it, and nothing of the work that was done."""
    monkeypatch.chdir(source)
    before = contents(source)
    assert run("slim", ".", "-p", "fuse", "-o", ".").code == 0
    assert set(contents(source)) - set(before) == {"onnx/model_quantized.onnx"}
    assert run("slim", ".", "-p", "fuse", "-o", "../out").code == 0
    assert (source.parent / "out/config.json").is_file()


def test_weights_are_kept_when_asked_for(source: Path, tmp_path: Path) -> None:
    """--keep-weights leaves out hidden folders alone; where the model takes the source's name, it stands there."""
    before = contents(source)
    assert run("slim", source, "-p", "canonicalize?,fuse", "-o", tmp_path / "all", "--keep-weights").code == 0
    after = contents(tmp_path / "all")
    assert set(before) - set(after) == {".git", ".git/HEAD"}
    assert after["onnx/model.onnx"] == before["onnx/model.onnx"]
    dropped = run("slim", source, "-p", "fuse", "-o", tmp_path / "in", "--keep-weights", "--name", "model.onnx")
    assert dropped.code == 0, dropped
    after = contents(tmp_path / "in")
    assert after["onnx/model.onnx"] != before["onnx/model.onnx"]
    assert after["model.safetensors"] == before["model.safetensors"]


def test_the_output_may_be_the_source_itself(source: Path) -> None:
    """-o MODEL adds the model and its report, touches nothing else, and refuses names that are taken."""
    before = contents(source)
    assert quantize(source, "-o", source).code == 0
    after = contents(source)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"onnx/model_quantized.onnx", "onnx/model_quantized.json"}
    assert_refused(quantize(source / ".", "-o", source, "--name", "model.onnx", "--force"), "is an input")
    assert_refused(quantize(source, "-o", source), "exists")
    assert quantize(source, "-o", source, "--force").code == 0


def test_without_an_output_it_lies_beside_the_source(source: Path) -> None:
    """tiny becomes tiny-int8, also when it is named with a slash or as the current folder."""
    assert quantize(source).code == 0
    assert (source.parent / "tiny-int8/onnx/model_quantized.onnx").is_file()


def test_a_folder_that_exists_is_added_to_only_when_asked(source: Path, tmp_path: Path) -> None:
    """An empty folder is taken; one with files is refused, and with --force what else it holds stays."""
    (tmp_path / "out").mkdir()
    assert run("slim", source, "-p", "fuse", "-o", tmp_path / "out").code == 0
    (tmp_path / "out/notes.txt").write_text("mine")
    held = contents(tmp_path / "out")
    assert_refused(run("slim", source, "-p", "fuse", "-o", tmp_path / "out"), "exists", "--force")
    assert contents(tmp_path / "out") == held
    assert run("slim", source, "-p", "fuse", "-o", tmp_path / "out", "--force").code == 0
    assert (tmp_path / "out/notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["-o", "tiny/in/side"], "lies in"),
        (["-o", "nowhere/out"], "no folder"),
        (["-o", "file"], "no folder"),
        (["-o", "out", "--name", "../x.onnx"], "--name"),
        (["-o", "out", "--name", "/x.onnx"], "--name"),
        (["-o", "out", "--name", "x.bin"], "--name"),
        (["-o", "out.onnx", "--layout", "vespa"], "--layout does nothing"),
        (["--in-place"], "--in-place"),
        (["-o", "out", "--target", "qnn", "--seq", "8,16"], "several lengths"),
    ],
)
def test_what_cannot_be_written_is_refused_before_any_work(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], said: str
) -> None:
    """One line, and nothing is there that was not."""
    monkeypatch.chdir(tmp_path)
    texts(tmp_path)
    Path("file").write_text("x")
    before = contents(tmp_path)
    assert_refused(run("quantize", "tiny", "--calib", "calib.tsv", *options), said)
    assert contents(tmp_path) == before


def test_a_configuration_that_is_none_is_not_copied(source: Path, tmp_path: Path) -> None:
    """Nobody could open the folder, though the job itself needs nothing of it."""
    (source / "config.json").write_text("{}{}")
    assert_refused(run("quantize", source, "--mode", "dynamic", "-o", tmp_path / "out"), "config.json is no JSON")
    assert not (tmp_path / "out").exists()


def test_a_budget_that_is_missed_writes_no_folder(source: Path, tmp_path: Path) -> None:
    """Exit code 6, no folder, no part of one."""
    texts(tmp_path)
    before = contents(tmp_path)
    done = quantize(source, "-o", tmp_path / "out", "--max-size", "1kB")
    assert done.code == 6
    assert contents(tmp_path) == before


def test_links_are_followed(source: Path, tmp_path: Path) -> None:
    """A folder of links, as the hub's cache is, becomes one of files."""
    source = source.rename(tmp_path / "blobs")
    links = tmp_path / "snapshots" / "1a2b"
    for name in contents(source):
        if (source / name).is_file():
            (links / name).parent.mkdir(parents=True, exist_ok=True)
            (links / name).symlink_to(source / name)
    assert run("slim", links, "-p", "fuse", "-o", tmp_path / "out").code == 0
    assert not any(path.is_symlink() for path in (tmp_path / "out").rglob("*"))
    assert (tmp_path / "out/config.json").read_bytes() == (source / "config.json").read_bytes()


@pytest.mark.parametrize("led", ["secret.txt", "private", "gone"])
def test_a_link_that_leads_out_of_the_folder_is_refused(source: Path, tmp_path: Path, led: str) -> None:
    """To a file, a folder, or nothing: one line that names the link, and no folder."""
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "private").mkdir()
    (tmp_path / "private/key").write_text("secret")
    (source / "notes").symlink_to(tmp_path / led)
    before = contents(tmp_path)
    assert_refused(run("slim", source, "-p", "fuse", "-o", tmp_path / "out"), "notes leads to", "put a copy there")
    assert contents(tmp_path) == before


def test_commands_that_read_models_take_folders(source: Path, tmp_path: Path) -> None:
    """validate, bench, inspect and verify find the model and its tokenizer in a folder."""
    assert quantize(source, "-o", tmp_path / "out", data=True).code == 0
    evaluation = tmp_path / "eval.tsv"
    assert run("validate", source, tmp_path / "out", "--data", evaluation).code == 0
    assert run("bench", source, tmp_path / "out", "--data", evaluation, "--rounds", "2").code == 0
    assert "3 attentions" in run("inspect", source).out
    checked = run("verify", tmp_path / "out", "--base", source, "--data", evaluation, "--calib", tmp_path / "calib.tsv")
    assert checked.code == 0, checked
    (source / "onnx/model.onnx").rename(source / "onnx/a.onnx")
    (source / "b.onnx").write_bytes(b"")
    for command in (["inspect"], ["bench"], ["quantize", "--calib", evaluation], ["slim", "-p", "fuse", "-o", "x"]):
        assert_refused(run(command[0], source, *command[1:]), "several ONNX files", "b.onnx, onnx/a.onnx")
