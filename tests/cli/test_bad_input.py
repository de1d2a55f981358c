"""What a user can get wrong: one clear line, exit code 2, no file left behind, the input untouched."""

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from command_line import (
    CLASSES,
    WORDS,
    assert_refused,
    contents,
    environment,
    run,
    workspace,
    write_rows,
    write_tokenizer,
)
from graphs import fixture
from onnx import external_data_helper, numpy_helper

from onnxslim_bert.calibration import collect
from onnxslim_bert.graph import files as output
from onnxslim_bert.job import load
from onnxslim_bert.job import prove as placing
from onnxslim_bert.model import onnx_model as model_module
from onnxslim_bert.model.onnx_model import Model

WORD_TABLE = "bert.embeddings.word_embeddings.weight"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A BERT classifier with its tokenizer and its rows."""
    return workspace(tmp_path)


def refused(model: Path, *parts: str, arguments: tuple[object, ...] = ()) -> None:
    """`onnxslim quantize` with the folder's rows and `arguments` is refused for `parts`, and changes no file."""
    before = contents(model.parent)
    given = arguments or ("--calib", model.parent / "calib.tsv", "--data", model.parent / "eval.tsv")
    assert_refused(run("quantize", model, *given), *parts)
    assert contents(model.parent) == before


# the model


@pytest.mark.parametrize("share", [0.0001, 0.01, 0.3, 0.6, 0.9, 0.999])
def test_a_truncated_model(model, share):
    data = model.read_bytes()
    model.write_bytes(data[: int(len(data) * share)])
    refused(model, "model.onnx: not a", "ONNX")


@pytest.mark.parametrize("seed", range(5))
def test_random_bytes(model, seed):
    model.write_bytes(np.random.default_rng(seed).bytes(3000))
    refused(model, "model.onnx: not a")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty"),
        (b"once upon a time\n", "not a complete ONNX file"),
        (b"\0" * 5000, "not a complete ONNX file"),
        (onnx.ModelProto(ir_version=8).SerializeToString(), "without nodes"),
    ],
    ids=["empty", "text", "zeros", "no graph"],
)
def test_a_file_that_holds_no_model(model, data, message):
    model.write_bytes(data)
    refused(model, message)


def test_a_folder_instead_of_a_model(model):
    model.unlink()
    model.mkdir()
    refused(model, "model.onnx: a folder; an ONNX model was needed")


def test_a_model_that_is_not_there(model):
    model.unlink()
    refused(model, "model.onnx: no such file; an ONNX model was needed")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mlp", "not a transformer encoder: no self-attention"),
        ("cnn", "not a transformer encoder: no self-attention"),
    ],
)
def test_a_model_that_is_no_encoder(tmp_path, name, message):
    """The reason names what was missing."""
    refused(workspace(tmp_path, name), message)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite(model, value):
    proto = onnx.load(model)
    table = next(tensor for tensor in proto.graph.initializer if tensor.name == WORD_TABLE)
    values = numpy_helper.to_array(table).copy()
    values[3, 5] = value
    table.CopyFrom(numpy_helper.from_array(values, WORD_TABLE))
    onnx.save(proto, model)
    refused(model, f"weight '{WORD_TABLE}' holds NaN or infinite values")


@pytest.mark.parametrize("place", ["gone.bin", "{outside}/weights.bin", "../outside/weights.bin", "link.bin"])
def test_external_data_that_are_missing_or_elsewhere(tmp_path, place):
    """A model reads no file that its folder does not hold, whichever way the path takes out."""
    folder, outside = tmp_path / "folder", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    model = workspace(folder)
    onnx.save_model(onnx.load(model), model, save_as_external_data=True, location="weights.bin", size_threshold=500)
    (folder / "weights.bin").rename(outside / "weights.bin")
    (folder / "link.bin").symlink_to(outside / "weights.bin")
    proto = onnx.load(model, load_external_data=False)
    for tensor in external_data_helper._get_all_tensors(proto):
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = place.format(outside=outside)
    model.write_bytes(proto.SerializeToString())
    refused(model, "not beside it" if place == "gone.bin" else "outside the model's folder")


# the tokenizer


def test_a_tokenizer_of_another_model(model):
    write_tokenizer(model.parent, [*WORDS, "one", "more"])
    refused(model, "tokenizer has 39 tokens, embedding has 37 rows", "the tokenizer that this model was trained with")


@pytest.mark.parametrize(
    ("tokenizer", "message"),
    [
        ("gone", "does not exist"),
        ("calib.tsv", "is not a tokenizer.json"),
        ("broken.json", "not a Hugging Face tokenizer.json"),
        ("empty", "has no tokenizer.json"),
    ],
)
def test_a_tokenizer_that_cannot_be_read(model, tokenizer, message):
    (model.parent / "broken.json").write_text("{}")
    (model.parent / "empty").mkdir()
    arguments = ("--calib", model.parent / "calib.tsv", "--tokenizer", model.parent / tokenizer)
    refused(model, message, arguments=arguments)


def test_no_tokenizer_beside_the_model(model):
    (model.parent / "tokenizer.json").unlink()
    refused(model, "has no tokenizer.json", "--tokenizer")


# the data


@pytest.mark.parametrize("option", ["--calib", "--data"])
@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("rows.tsv", "", "no rows"),
        ("rows.tsv", "sentence\tlabel\n", "no rows"),
        ("rows.txt", "\n \n", "no rows"),
        ("rows.tsv", "sentence\tlabel\nw1 w2\n", "line 2: 1 cells: needed 2"),
        ("rows.tsv", "number\tlabel\n1\t0\n", "cannot tell the texts"),
        ("rows.jsonl", "{", "line 1: not JSON"),
        ("rows.npz", "no archive", "not an npz of plain arrays"),
        ("rows.docx", "w1", "unknown file type '.docx'"),
    ],
)
def test_rows_that_cannot_be_read(model, option, name, text, message):
    path = model.parent / name
    path.write_text(text)
    other = ("--data", model.parent / "eval.tsv") if option == "--calib" else ("--calib", model.parent / "calib.tsv")
    refused(model, message, arguments=(option, path, *other))


def test_a_label_out_of_range_is_refused_where_it_judges(model):
    path = model.parent / "rows.tsv"
    path.write_text("sentence\tlabel\nw1 w2\t-3\n")
    refused(model, "label -3 is out of range", arguments=("--calib", model.parent / "calib.tsv", "--data", path))


def test_rows_that_are_not_utf8(model):
    path = model.parent / "rows.txt"
    path.write_bytes("caf\u00e9\n".encode("latin-1"))
    refused(model, "is not UTF-8", arguments=("--calib", path))


@pytest.mark.parametrize(
    ("name", "message"), [("sst22", "did you mean 'sst2'?"), ("gone.tsv", "no file is called"), ("", "is a folder")]
)
def test_data_that_are_not_there(model, name, message):
    refused(model, message, arguments=("--calib", name or model.parent))


def test_labels_beyond_the_model_s_classes(model, monkeypatch):
    """Found before calibration, not after it."""
    monkeypatch.setattr(collect, "model_session", lambda *_, **__: pytest.fail("it calibrated"))
    path = model.parent / "labels.tsv"
    path.write_text(f"sentence\tlabel\nw1 w2\t0\nw3 w4\t{CLASSES}\n")
    arguments = ("--calib", model.parent / "calib.tsv", "--data", path)
    refused(model, "label 5 on row 2 of 'labels.tsv': needed one of the model's classes 0 to 4", arguments=arguments)


def test_scores_for_a_classifier(model):
    path = model.parent / "scores.tsv"
    path.write_text("sentence\tlabel\nw1 w2\t0.5\nw3 w4\t1.5\n")
    arguments = ("--calib", model.parent / "calib.tsv", "--data", path)
    refused(model, "'scores.tsv' holds scores, which need a model with one output", arguments=arguments)


def test_one_column_where_labels_are_needed(model):
    texts = model.parent / "texts.txt"
    texts.write_text("w1 w2\nw3\n")
    arguments = ("--calib", model.parent / "calib.tsv", "--data", texts, "--label-column", "label")
    refused(model, "no column 'label'", arguments=arguments)
    budget = ("--data", texts, "--max-drop", "1")
    assert_refused(run("validate", model, model, *budget), "a budget for the drop needs labels")


def test_ready_inputs_that_the_model_cannot_take(model):
    """Ids beyond the embedding, rows beyond the positions."""
    path = model.parent / "rows.npz"
    for shape, highest, message in (((20, 7), 99, "37"), ((20, 40), 30, "40")):
        ids = np.random.default_rng(0).integers(1, highest, shape)
        np.savez(path, input_ids=ids, attention_mask=np.ones_like(ids), token_type_ids=np.zeros_like(ids))
        refused(model, message, arguments=("--calib", path))


def test_fewer_rows_than_the_model_s_batch(model, monkeypatch):
    """Refused before anything runs: one batch of thousands of rows takes gigabytes."""
    monkeypatch.setattr(load, "roles_of", lambda *_, **__: pytest.fail("ran"))
    proto = onnx.load(model)
    for value in [*proto.graph.input, *proto.graph.output]:
        value.type.tensor_type.shape.dim[0].dim_value = 50
    onnx.save(proto, model)
    refused(model, "too few calibration rows; give at least 50, see --rows")


# the output


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("gone/o.onnx", "no folder"),
        ("calib.tsv/o.onnx", "no folder"),
        (".", "is no regular file"),
        ("pipe", "is no regular file"),
    ],
)
def test_an_output_that_cannot_be_written(model, target, message):
    """Said before any work, even with --force."""
    if target == "pipe":
        os.mkfifo(model.parent / target)
    arguments = ("--calib", model.parent / "calib.tsv", "-o", model.parent / target, "--force")
    refused(model, message, arguments=arguments)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(model):
    model.parent.chmod(0o500)
    try:
        refused(model, "cannot be written")
    finally:
        model.parent.chmod(0o700)


@pytest.mark.parametrize("write", [1, 2], ids=["model", "report"])
@pytest.mark.parametrize("exists", [False, True], ids=["new", "over"])
def test_a_full_disk(model, monkeypatch, write, exists):
    """When the model is written as when the report is: neither is there, or both are as they were."""
    if exists:
        for name in ("model.int8.onnx", "model.int8.json"):
            (model.parent / name).write_text("precious")
    writes = []
    real = os.fsync

    def fsync(handle: int) -> None:
        writes.append(handle)
        if len(writes) == write:
            raise OSError(28, "No space left on device")
        real(handle)

    monkeypatch.setattr(output.os, "fsync", fsync)
    arguments = ("--calib", model.parent / "calib.tsv", "--method", "minmax", "--force")
    place = f"{model.parent}/model.int8."
    refused(model, place, "cannot be written (No space left on device)", arguments=arguments)
    assert len(writes) == write


def test_a_file_larger_than_the_system_allows(model):
    """A real limit, in a process of its own: as a full disk, but no privilege is needed to make one."""
    before = contents(model.parent)
    arguments = ["quantize", model, "--calib", model.parent / "calib.tsv", "--method", "minmax"]
    done = subprocess.run(
        [sys.executable, "-m", "onnxslim_bert", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment(PYTHONDONTWRITEBYTECODE="1"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000)),
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "cannot be written (File too large)" in done.stderr
    assert contents(model.parent) == before


# a stop half way

SLOW = """
import sys, time
import {module} as module
real = module.{name}

def slow(*given, **named):
    print("at work", flush=True)
    time.sleep(0.2)
    return real(*given, **named)

module.{name} = slow
from onnxslim_bert.cli import main
main(sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("module", "name"),
    [("onnxslim_bert.calibration.collect", "run_in_turn"), ("onnxslim_bert.proof.collect", "one_per_row")],
    ids=["calibrating", "evaluating"],
)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"])
def test_an_interrupt_leaves_nothing_behind(model, module, name, number, code):
    """A real signal to a real process, while batches run."""
    before = contents(model.parent)
    arguments = ["quantize", model, "--calib", model.parent / "calib.tsv", "--data", model.parent / "eval.tsv"]
    command = [sys.executable, "-c", SLOW.format(module=module, name=name), *map(str, [*arguments, "--method", "mse"])]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, env=environment(), **pipes) as process:
        for _ in range(3):
            assert process.stdout.readline() == "at work\n", process.stderr.read()
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert process.returncode == code
    assert said == ("onnxslim: interrupted; nothing was written\n" if number == signal.SIGINT else "")
    assert contents(model.parent) == before


# other commands


@pytest.mark.parametrize(
    "command",
    [
        lambda model, folder: ("slim", model, "-p", "canonicalize", "-o", folder / "o.onnx"),
        lambda model, folder: ("inspect", model),
        lambda model, folder: ("validate", model, model, "--data", folder / "eval.tsv"),
        lambda model, folder: ("bench", model, "--seq", "4", "--rounds", "2"),
    ],
    ids=["slim", "inspect", "validate", "bench"],
)
@pytest.mark.parametrize("damage", ["truncated", "random", "empty", "gone", "folder"])
def test_every_command_refuses_a_damaged_model(model, damage, command: Callable[[Path, Path], tuple[object, ...]]):
    data = model.read_bytes()
    model.unlink()
    if damage == "folder":
        model.mkdir()
    elif damage != "gone":
        model.write_bytes({"truncated": data[:-500], "random": data[::-1], "empty": b""}[damage])
    before = contents(model.parent)
    assert_refused(run(*command(model, model.parent)), "model.onnx")
    assert contents(model.parent) == before


def test_the_shortest_rows_and_the_longest(model):
    """One word, and more words than the model has positions: both are data like any other."""
    rows = model.parent / "rows.tsv"
    write_rows(rows, 20, seed=9)
    rows.write_text(rows.read_text() + f"w1\t0\n{' '.join(WORDS * 3)}\t1\n")
    outcome = run("quantize", model, "--calib", model.parent / "calib.tsv", "--data", rows, "--method", "minmax")
    assert (outcome.code, outcome.err) == (0, "")
    assert fixture("bert-ts17-sdpa").read_bytes() == model.read_bytes()


def test_a_result_that_answers_infinity_is_not_written(model, monkeypatch):
    """Whatever the passes did to it."""
    real = placing.compare
    monkeypatch.setattr(placing, "compare", lambda *given, **named: replace(real(*given, **named), broken=7))
    refused(model, "the result answers NaN or infinity on 7 of 24 rows; nothing was written")


def test_weights_beside_a_model_replace_nothing_unasked(model, monkeypatch):
    """Neither another file of that name nor the weights of the source, and never through a link."""
    monkeypatch.setattr(model_module, "LARGEST", 1_000)
    target, data = model.parent / "o.onnx", model.parent / "o.onnx.data"
    data.write_text("mine")
    before = contents(model.parent)
    arguments = ("slim", model, "-p", "canonicalize", "-o", target)
    for more, said in (((), "o.onnx.data exists"), (("--force",), "")):
        outcome = run(*arguments, *more)
        assert (outcome.code, said in outcome.err) == (2 if said else 0, True)
        assert said == "" or contents(model.parent) == before
    outcome = run("slim", target, "-p", "canonicalize?", "--in-place", "--allow-noop")
    assert outcome.code == 2
    assert "o.onnx.data is an input" in outcome.err
    (model.parent / "link.onnx").symlink_to("deep.onnx")
    outcome = run("slim", model, "-p", "canonicalize", "-o", model.parent / "link.onnx", "--force")
    assert outcome.code == 2
    assert "link.onnx is a link, and the weights need a file beside it" in outcome.err


def test_a_model_too_large_for_one_file_has_a_file_of_weights_beside_it(model, monkeypatch):
    """Protobuf ends at 2 GiB; here, at 1 kB. The model moves with that file, and is a source like any other."""
    monkeypatch.setattr(model_module, "LARGEST", 1_000)
    target, folder = model.parent / "o.onnx", model.parent / "moved"
    before = set(contents(model.parent))
    outcome = run("slim", model, "-p", "canonicalize", "-o", target, "--json")
    assert json.loads(outcome.out)["weights_file"] == "o.onnx.data"
    assert {"o.onnx", "o.onnx.data"} <= set(contents(model.parent)) - before
    folder.mkdir()
    for file in (target, model.parent / "o.onnx.data"):
        file.rename(folder / file.name)
    monkeypatch.undo()
    assert run("slim", folder / "o.onnx", "-p", "canonicalize?", "-o", folder / "again.onnx", "--allow-noop").code == 0
    assert run("slim", model, "-p", "canonicalize", "-o", model.parent / "one.onnx").code == 0
    again, one = (Model.load(path) for path in (folder / "again.onnx", model.parent / "one.onnx"))
    assert {name: values.values.tobytes() for name, values in again.constants().items()} == {
        name: values.values.tobytes() for name, values in one.constants().items()
    }
    assert (folder / "o.onnx").stat().st_size < (model.parent / "one.onnx").stat().st_size
