"""The main job, from the command line: a smaller model that answers alike, a report, and nothing else touched."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from command_line import CLASSES, WORDS, assert_refused, contents, run, run_process, run_python, workspace, write_rows
from graphs import fixture
from onnx import TensorProto

from onnxslim_bert.arrays import Array
from onnxslim_bert.graph import sessions as runtime
from onnxslim_bert.graph.files import file_sha256
from onnxslim_bert.model import session as model_session_module
from onnxslim_bert.passes import quantize_static
from onnxslim_bert.recipes.provenance import KEY
from onnxslim_bert.rewriting.int8.run_time import RunTime

REPORT = {
    *("schema", "onnxslim_bert", "host", "source", "output", "source_bytes", "output_bytes", "provenance", "steps"),
    *("methods", "comparison", "worst", "latencies", "saturating", "placement", "unproven", "proven_on"),
    *("buckets", "deployment", "max_length", "threads", "seed", "found", "weights_file", "unjudged"),
    *("gate", "verdicts", "published"),
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A BERT classifier with its tokenizer and its rows."""
    return workspace(tmp_path)


def quantized(model: Path, *arguments: object, name: str = "model.int8.onnx") -> dict[str, object]:
    """Run `onnxslim quantize model ARGUMENTS`; the report of what it wrote to `name`."""
    outcome = run("quantize", model, *arguments)
    assert (outcome.code, outcome.err) == (0, ""), outcome
    assert (model.parent / name).is_file()
    report: dict[str, object] = json.loads((model.parent / name).with_suffix(".json").read_text())
    return report


def rows(model: Path) -> tuple[Path, Path]:
    """The files to calibrate and to evaluate on."""
    return model.parent / "calib.tsv", model.parent / "eval.tsv"


def answers(path: Path, count: int = 6, length: int = 9) -> Array:
    """The first output on random ids."""
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    ids = np.random.default_rng(0).integers(1, len(WORDS), (count, length))
    given = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    first: Array = session.run(None, {i.name: given[i.name] for i in session.get_inputs()})[0]
    return first


def distance(one: Path, other: Path) -> float:
    """The mean distance of their answers, which are of the order of 1."""
    return float(np.abs(answers(one) - answers(other)).mean())


def weight_types(path: Path) -> list[int]:
    """The ONNX type of every matrix but the few of the head, which stay float."""
    tensors = onnx.load(path).graph.initializer
    return [t.data_type for t in tensors if len(t.dims) == 2 and min(t.dims) > 5 and "pooler" not in t.name]


def operators(path: Path) -> set[str]:
    """The operators in a file, with their domains where these are not ONNX's own."""
    return {f"{node.domain}.{node.op_type}" if node.domain else node.op_type for node in onnx.load(path).graph.node}


# what it writes


def test_the_default_writes_a_model_and_a_report_and_touches_nothing_else(model):
    """model.int8.onnx and model.int8.json beside the input, which stays as it was."""
    calibration, evaluation = rows(model)
    before = contents(model.parent)
    outcome = run("quantize", model, "--calib", calibration, "--data", evaluation)
    assert (outcome.code, outcome.err) == (0, "")
    after = contents(model.parent)
    assert {name: after[name] for name in before} == before
    assert after.keys() - before.keys() == {"model.int8.onnx", "model.int8.json"}
    result = model.parent / "model.int8.onnx"
    assert result.stat().st_size < model.stat().st_size / 2
    assert distance(result, model) < 0.1
    for said in ("quantize-static", "size", "accuracy", "latency, batch 1", "agreement", "eval.tsv all, 24 rows"):
        assert said in outcome.out
    assert outcome.out.endswith(f"{result} and {result.with_suffix('.json')} written\n")


def test_the_report_says_what_was_done_and_what_it_is_worth(model):
    calibration, evaluation = rows(model)
    given = ("--calib", calibration, "--data", evaluation, "--mode", "static", "--rows", "30", "--seed", "3")
    report = quantized(model, *given)
    result = model.parent / "model.int8.onnx"
    assert report.keys() == REPORT
    assert (report["source"], report["output"]) == (str(model), str(result))
    assert (report["source_bytes"], report["output_bytes"]) == (model.stat().st_size, result.stat().st_size)
    seen = report["comparison"]
    assert (seen["data"], seen["rows"], seen["scores"][0]["metric"]) == ("eval.tsv", 24, "accuracy")
    assert seen["fidelity"]["agreement"]["value"] > 80
    assert [latency["model"] for latency in report["latencies"]] == [str(model), str(result)]
    assert set(report["methods"]) == {"minmax", "moving-average", "percentile", "entropy", "mse"}
    assert report["provenance"]["calibration"] == "calib.tsv all, 30 rows"
    assert report["seed"] == 3
    assert report["max_length"] == 23  # as many as the model has positions
    best = min(report["methods"], key=report["methods"].get)
    chosen = next(step["step"] for step in report["steps"] if step["step"].startswith("quantize-static"))
    assert (f"method={best}" in chosen) is (best != "minmax")  # another option depends on the CPU


def test_the_model_carries_its_provenance(model):
    calibration, _ = rows(model)
    report = quantized(model, "--calib", calibration, "--method", "minmax")
    kept = {entry.key: entry.value for entry in onnx.load(model.parent / "model.int8.onnx").metadata_props}
    noted = json.loads(kept[KEY])
    assert noted == report["provenance"]
    assert (noted["source"], noted["source_sha256"]) == ("model.onnx", file_sha256(model))
    assert noted["recipe"].startswith("canonicalize?,fuse?,first-token?")
    assert len(noted["calibration_sha256"]) == 64


def test_json_is_the_report_and_all_of_stdout(model):
    """One document; a program that reads it meets nothing else."""
    calibration, _ = rows(model)
    outcome = run("quantize", model, "--calib", calibration, "--json")
    assert (outcome.code, outcome.err) == (0, "")
    printed = json.loads(outcome.out)
    assert printed == json.loads((model.parent / "model.int8.json").read_text())
    assert printed["comparison"]["split"] == "held back"


@pytest.mark.parametrize("form", ["contrib", "newest", "qdq"])
@pytest.mark.parametrize("mode", ["static", "dynamic"])
def test_int8_in_both_modes_and_formats(model, mode, form):
    """Weights are int8 and answers close; qdq stays within the standard operators, newest has those of opset 23."""
    calibration, evaluation = rows(model)
    calib = ["--calib", calibration, "--method", "minmax", "--no-smooth"] if mode == "static" else []
    report = quantized(model, "--mode", mode, "--format", form, "--data", evaluation, *calib)
    result = model.parent / "model.int8.onnx"
    names = operators(result)
    assert form != "qdq" or not [name for name in names if "." in name]
    assert (onnx.load(result).opset_import[0].version == 23) == (form == "newest")
    assert len(weight_types(result)) >= 18
    assert set(weight_types(result)) <= {TensorProto.INT8, TensorProto.UINT8}
    assert distance(result, model) < 0.1
    assert any(step["step"].startswith(f"quantize-{mode}") for step in report["steps"])


def test_half_precision(model):
    """model.fp16.onnx, half the weights, outputs still float32."""
    _, evaluation = rows(model)
    report = quantized(model, "--mode", "fp16", "--data", evaluation, name="model.fp16.onnx")
    result = model.parent / "model.fp16.onnx"
    assert set(weight_types(result)) == {TensorProto.FLOAT16}
    assert answers(result).dtype == np.float32
    assert distance(result, model) < 0.004
    assert report["comparison"]["fidelity"]["agreement"]["value"] == 100


def test_a_named_method_is_used_and_none_is_compared(model):
    calibration, _ = rows(model)
    report = quantized(model, "--calib", calibration, "--method", "entropy")
    assert report["methods"] == {}
    assert any(step["step"].startswith("quantize-static{method=entropy") for step in report["steps"])


def test_smoothing_can_be_left_out(model):
    calibration, _ = rows(model)
    steps = [step["step"] for step in quantized(model, "--calib", calibration, "--method", "minmax")["steps"]]
    assert "smooth?" in steps
    report = quantized(model, "--calib", calibration, "--method", "minmax", "--no-smooth", "--force")
    assert "smooth?" not in [step["step"] for step in report["steps"]]


def test_batch_skips_padding(model):
    calibration, _ = rows(model)
    report = quantized(model, "--calib", calibration, "--method", "minmax", "--batch")
    assert next(step["count"] for step in report["steps"] if step["step"] == "unpad") == 1


def test_batch_is_refused_where_padding_is_answered(tmp_path):
    """States of tokens are answers at padding, too: the option would do nothing."""
    model = workspace(tmp_path, "bert-features")
    done = run("quantize", model, "--calib", tmp_path / "calib.tsv", "--method", "minmax", "--batch")
    assert done.code == 2
    assert done.err.startswith(
        "onnxslim: --batch: padding cannot be dropped: padding positions are read: the whole last"
    )
    assert not model.with_name("model.int8.onnx").exists()


def test_threads_reach_every_session(model, monkeypatch):
    """Those that calibrate, choose, evaluate and time."""
    seen = []
    real = runtime.session_options
    for module in (runtime, model_session_module):
        monkeypatch.setattr(module, "session_options", lambda *given: seen.append(given[0]) or real(*given))
    calibration, evaluation = rows(model)
    quantized(model, "--calib", calibration, "--data", evaluation, "--threads", "2")
    assert len(seen) > 10
    assert set(seen) == {2}


# other data and other models


def test_the_built_in_reviews_calibrate_and_evaluate(model):
    """Half of them each, without naming data twice."""
    report = quantized(model, "--calib", "reviews", "--rows", "20", "--method", "minmax")
    assert (report["provenance"]["calibration"], report["comparison"]["data"]) == (
        "reviews calibration, 20 rows",
        "reviews",
    )
    assert (report["comparison"]["split"], report["comparison"]["rows"] > 200) == ("evaluation", True)


def test_a_named_set_evaluates_on_its_validation_split(model, monkeypatch):
    """Here from $ONNXSLIM_DATA."""
    folder = model.parent / "data" / "sst2"
    folder.mkdir(parents=True)
    for name, count in (("train.tsv", 30), ("dev.tsv", 20)):
        write_rows(folder / name, count, seed=count)
        text = (folder / name).read_text().splitlines()
        (folder / name).write_text("\n".join([text[0], *(f"{row[:-1]}{int(row[-1]) % 2}" for row in text[1:])]) + "\n")
    monkeypatch.setenv("ONNXSLIM_DATA", str(folder.parent))
    report = quantized(model, "--calib", "sst2", "--method", "minmax")
    assert report["provenance"]["calibration"] == "sst2 train, 30 rows"
    assert (report["comparison"]["data"], report["comparison"]["rows"]) == ("sst2", 20)


def test_ready_inputs_need_no_tokenizer(model):
    calibration, evaluation = model.parent / "calib.npz", model.parent / "eval.npz"
    for seed, path in enumerate((calibration, evaluation)):
        ids = np.random.default_rng(seed).integers(1, len(WORDS), (20, 7))
        given = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        np.savez(path, label=np.arange(20) % CLASSES, **given)
    (model.parent / "tokenizer.json").unlink()
    report = quantized(model, "--calib", calibration, "--data", evaluation, "--method", "minmax")
    assert (report["comparison"]["rows"], report["comparison"]["scores"][0]["metric"]) == (20, "accuracy")


def test_pairs_of_texts(model):
    calibration, evaluation = model.parent / "pairs.tsv", model.parent / "held.tsv"
    write_rows(calibration, 20, seed=5, texts=2)
    write_rows(evaluation, 20, seed=6, texts=2)
    report = quantized(model, "--calib", calibration, "--data", evaluation, "--method", "minmax")
    assert report["comparison"]["rows"] == 20


def test_columns_are_those_of_the_file(model):
    """Named ones, whatever the other set calls its own."""
    evaluation = model.parent / "odd.csv"
    evaluation.write_text("said,meant\n" + "".join(f"{word},{row % CLASSES}\n" for row, word in enumerate(WORDS)))
    columns = ["--text-column", "said", "--label-column", "meant"]
    report = quantized(model, "--calib", "reviews", "--data", evaluation, *columns, "--rows", "9", "--method", "minmax")
    assert report["comparison"]["scores"][0]["metric"] == "accuracy"


def test_calibration_texts_need_no_labels(model):
    texts = model.parent / "texts.txt"
    texts.write_text("\n".join(f"{word} w1 w2" for word in WORDS) + "\n")
    _, evaluation = rows(model)
    arguments = ["--calib", texts, "--data", evaluation, "--label-column", "label", "--method", "minmax"]
    assert quantized(model, *arguments)["comparison"]["scores"]


@pytest.mark.parametrize(
    "name", ["bert-nomask", "roberta-ts17-sdpa", "distilbert-dynamo18-eager", "albert-ts17-sdpa", "fused-mha"]
)
def test_other_encoders(tmp_path, name):
    """Without a mask, without token types, with shared weights, fused already."""
    model = workspace(tmp_path, name)
    calibration, evaluation = rows(model)
    report = quantized(model, "--calib", calibration, "--data", evaluation, "--method", "minmax", "--max-length", "16")
    assert report["comparison"]["fidelity"]["agreement"]["value"] > 80
    assert (tmp_path / "model.int8.onnx").stat().st_size == report["output_bytes"]


@pytest.mark.parametrize("name", ["bert-features", "bert-features-pooled"])
def test_an_embedding_model_has_no_accuracy_but_a_cosine(tmp_path, name):
    model = workspace(tmp_path, name)
    calibration, evaluation = rows(model)
    outcome = run("quantize", model, "--calib", calibration, "--data", evaluation, "--method", "minmax")
    assert outcome.code == 0, outcome.err
    assert "cosine: mean 0.9" in outcome.out
    report = json.loads((tmp_path / "model.int8.json").read_text())
    assert (report["comparison"]["kind"], report["comparison"]["scores"]) == ("embedding", [])
    assert report["comparison"]["fidelity"]["min_cosine"] > 0.95


def test_external_data_count_as_part_of_the_source(tmp_path):
    """In its size and in its hash; the result is one file."""
    model = workspace(tmp_path)
    onnx.save_model(onnx.load(model), model, save_as_external_data=True, location="weights.bin", size_threshold=500)
    report = quantized(model, "--calib", tmp_path / "calib.tsv", "--method", "minmax")
    weights = tmp_path / "weights.bin"
    assert report["source_bytes"] == model.stat().st_size + weights.stat().st_size
    assert report["provenance"]["source_sha256"] == file_sha256(model, weights)
    taken = ["--calib", tmp_path / "calib.tsv", "-o", weights, "--force"]
    assert_refused(run("quantize", model, *taken), "weights.bin is an input")


@pytest.mark.parametrize("shape", [(1, 16), (4, 9)], ids=str)
def test_a_model_with_a_fixed_shape(tmp_path, shape):
    """Rows are padded to its length and batches filled; it is timed at the shape that it runs."""
    model = workspace(tmp_path)
    proto = onnx.load(model)
    for value in [*proto.graph.input, *proto.graph.output]:
        for axis, size in zip(value.type.tensor_type.shape.dim, shape, strict=True):
            if axis.dim_param in ("batch", "sequence"):
                axis.dim_value = size
    onnx.save(proto, model)
    report = quantized(model, "--calib", tmp_path / "calib.tsv", "--data", tmp_path / "eval.tsv")
    assert [(each["batch"], each["length"]) for each in report["latencies"]] == [shape, shape]


# the same again


def test_the_same_input_and_seed_give_the_same_bytes(model):
    """In other processes, whatever order their hashes give to sets."""
    arguments = ["--calib", rows(model)[0], "--rows", "30", "--seed", "4"]
    for number in "12":
        outcome = run_process(
            "quantize", model, *arguments, "-o", model.parent / f"{number}.onnx", PYTHONHASHSEED=number
        )
        assert (outcome.code, outcome.err) == (0, "")
    assert (model.parent / "1.onnx").read_bytes() == (model.parent / "2.onnx").read_bytes()


def test_another_seed_draws_other_rows(model):
    drawn = set()
    for seed in "01":
        arguments = ["--calib", rows(model)[0], "--rows", "20", "--seed", seed, "--method", "minmax", "--force"]
        drawn.add(quantized(model, *arguments)["provenance"]["calibration_sha256"])
    assert len(drawn) == 2


@pytest.mark.parametrize("mode", ["static", "dynamic", "fp16"])
def test_no_torch_and_no_transformers_at_run_time(model, mode):
    code = """
import sys
from onnxslim_bert.cli import main
main(sys.argv[1:])
print([name for name in ("torch", "transformers", "pyarrow", "huggingface_hub") if name in sys.modules])
"""
    calib = ["--calib", rows(model)[0], "--method", "minmax"] if mode == "static" else ["--data", rows(model)[1]]
    assert run_python(code, "quantize", model, "--mode", mode, *calib).splitlines()[-1] == "[]"


# what is there stays there


@pytest.mark.parametrize("name", ["model.int8.onnx", "model.int8.json"])
def test_neither_a_model_nor_a_report_is_overwritten_unasked(model, name):
    (model.parent / name).write_text("precious")
    before = contents(model.parent)
    outcome = run("quantize", model, "--calib", rows(model)[0])
    assert_refused(outcome, f"{name} exists; give another output or --force to overwrite it")
    assert contents(model.parent) == before
    quantized(model, "--calib", rows(model)[0], "--method", "minmax", "--force")
    assert contents(model.parent)[name] != before[name]


@pytest.mark.parametrize("place", ["itself", "link"])
def test_the_input_is_never_the_output(model, place):
    """Not even with --force, and not by another name."""
    target = model
    if place == "link":
        target = model.parent / "link.onnx"
        target.symlink_to(model)
    before = contents(model.parent)
    outcome = run("quantize", model, "--calib", rows(model)[0], "-o", target, "--force")
    assert_refused(outcome, f"{target.name} is an input")
    assert contents(model.parent) == before


def test_in_place_replaces_the_input(model):
    """When asked; the report is still not written over another."""
    before = model.stat().st_size
    (model.parent / "model.json").write_text("precious")
    arguments = ["quantize", model, "--calib", rows(model)[0], "--method", "minmax", "--in-place"]
    assert_refused(run(*arguments), "model.json exists")
    assert model.read_bytes() == fixture("bert-ts17-sdpa").read_bytes()
    (model.parent / "model.json").unlink()
    report = quantized(model, *arguments[2:], name="model.onnx")
    assert (report["source_bytes"], report["output_bytes"]) == (before, model.stat().st_size)
    assert model.stat().st_size < before
    assert answers(model).shape == (6, CLASSES)


def test_an_output_that_is_its_own_report_is_refused(model):
    target = model.parent / "o.json"
    assert_refused(run("quantize", model, "--calib", rows(model)[0], "-o", target), "is the name of its own report")


def test_an_int8_model_is_not_quantized_again(model):
    calibration, _ = rows(model)
    quantized(model, "--calib", calibration, "--method", "minmax")
    again = run("quantize", model.parent / "model.int8.onnx", "--calib", calibration)
    assert_refused(again, "quantized already; start from the float model")


# calibration and evaluation


def test_rows_for_both_purposes_are_refused(model):
    """A model may not be judged on what it was fitted to."""
    calibration, _ = rows(model)
    other = model.parent / "other.tsv"
    other.write_text("sentence\tlabel\n" + calibration.read_text().splitlines()[3].upper() + "\n")
    assert_refused(
        run("quantize", model, "--calib", calibration, "--data", other),
        "1 of 40 calibration rows are evaluation rows too",
    )
    assert_refused(run("quantize", model, "--calib", calibration, "--data", calibration), "40 of 40 calibration rows")


def test_static_needs_calibration_texts(model):
    assert_refused(run("quantize", model, "--data", rows(model)[1]), "static quantization needs calibration texts")


def test_options_that_would_do_nothing_are_refused(model):
    """A label column of no file, a tokenizer for ready inputs."""
    texts = model.parent / "calib.tsv"
    assert_refused(run("quantize", model, "--calib", texts, "--label-column", "nosuch"), "no column 'nosuch'")
    given = ("quantize", model, "--calib", texts, "--data", "reviews", "--label-column", "nosuch")
    assert_refused(run(*given), "'nosuch' does nothing")
    ready = model.parent / "calib.npz"
    ids = np.ones((20, 7), np.int64)
    np.savez(ready, input_ids=ids, attention_mask=ids, token_type_ids=0 * ids)
    assert_refused(run("quantize", model, "--calib", ready, "--tokenizer", "/nosuch"), "do nothing with ready inputs")


def test_one_row_is_no_calibration(model, tmp_path):
    """Its ranges serve no other text."""
    path = tmp_path / "one.txt"
    path.write_text("a good film\n")
    outcome = run("quantize", model, "--calib", path, "-o", tmp_path / "o.onnx")
    assert outcome.code == 2
    assert "'one.txt' has 1 row to calibrate on: the ranges of one text serve no other" in outcome.err


def test_rows_held_back_that_cannot_judge_are_said_to(model, tmp_path):
    """The model is made as before; a budget on rows is refused with the reason."""
    path = tmp_path / "texts.csv"
    path.write_text("text,label\n" + "".join(f"w{row} w{row % 7},{row % 9}\n" for row in range(30)))
    options = ["--method", "minmax", "--calib", path, "-o", tmp_path / "o.onnx"]
    outcome = run("quantize", model, *options)
    assert outcome.code == 0, outcome.err
    assert outcome.out.count("accuracy: not measured: ") == 1
    assert_refused(run("quantize", model, *options, "--min-agreement", "9", "--force"), "label")
    assert run("verify", tmp_path / "o.onnx", "--base", model).code == 0


def test_dynamic_ranges_and_a_length_that_is_too_long_are_said(model, tmp_path):
    """Where the model has no positions for so many tokens."""
    options = ["--mode", "dynamic", "--max-length", "500"]
    outcome = run("quantize", model, *options, "--data", rows(model)[1], "-o", tmp_path / "o.onnx")
    assert outcome.code == 0, outcome.err
    assert "dynamic int8: answers depend on the other texts and the padding of a batch" in outcome.out
    steps = ["-p", "canonicalize,quantize-dynamic?", "-o", tmp_path / "p.onnx"]
    assert "dynamic int8: answers depend on" in run("slim", model, *steps).out
    assert "dynamic int8" not in run("slim", model, "-p", "canonicalize", "-o", tmp_path / "c.onnx").out
    assert "--max-length 500: the model serves 23 tokens a row, so rows were cut to 23" in outcome.out


# ranges of activations


def test_a_default_that_measures_worse_than_ranges_from_run_time_is_not_written(model, monkeypatch):
    """The result is then that of --mode dynamic, weight for weight; the report says what was measured."""
    calibration, _ = rows(model)
    found = RunTime(inputs=(0,), error=0.2, fixed=0.3, dynamic=0.1, as_good=False)
    monkeypatch.setattr(quantize_static, "choose_run_time", lambda *_: found)
    report = quantized(model, "--calib", calibration)
    step = next(step for step in report["steps"] if step["step"].startswith("quantize"))
    assert step["step"].startswith("quantize-dynamic")
    assert "found at run time (mean error 10 %, with calibrated ones 30 %): calibrated ones were not" in step["note"]
    assert step["details"]["ranges"] == {**asdict(found), "inputs": [0]}
    assert "smooth" not in report["provenance"]["recipe"]
    assert report["methods"]
    given = model.parent / "dynamic.onnx"
    assert run("quantize", model, "--mode", "dynamic", "-o", given).code == 0
    np.testing.assert_array_equal(answers(model.parent / "model.int8.onnx"), answers(given))


@pytest.mark.parametrize("form", ["contrib", "qdq"])
def test_the_default_is_never_worse_than_ranges_from_run_time(model, form):
    """On rows of random ids, of one token to all that fit, whatever the calibration texts are: here two words."""
    few = model.parent / "few.txt"
    few.write_text("".join(" ".join(WORDS[-2:] * (1 + n % 4)) + "\n" for n in range(40)))
    errors = {}
    for mode in ("auto", "dynamic"):
        out = model.parent / f"{mode}.onnx"
        calib = ["--calib", few] if mode == "auto" else []
        assert run("quantize", model, "--mode", mode, "--format", form, "-o", out, *calib).code == 0
        lengths = (1, 2, 3, 5, 9, 16)
        errors[mode] = [np.square(answers(out, 16, n) - answers(model, 16, n)).mean() for n in lengths]
    assert np.mean(errors["auto"]) <= 1.25 * np.mean(errors["dynamic"])
    assert np.max(errors["auto"]) <= 2 * np.max(errors["dynamic"])
