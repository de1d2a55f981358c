"""Any recipe over a file: what it asks for happens, and only that."""

import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
import tokenizers
import tokenizers.models
import tokenizers.pre_tokenizers
import tokenizers.processors
from command_line import SPECIAL, assert_refused, contents, run, run_process, workspace, write_tokenizer
from graphs import feeds
from oracles import assert_same_outputs

from onnxslim_bert.graph.files import file_sha256
from onnxslim_bert.job.data import Sources
from onnxslim_bert.job.deployment import Deployment
from onnxslim_bert.job.job import Job
from onnxslim_bert.job.measured import read
from onnxslim_bert.job.run import run as run_job
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.recipes.lowering import lowered
from onnxslim_bert.recipes.provenance import KEY
from onnxslim_bert.recipes.recipe import Recipe

EXACT = "canonicalize,fuse,first-token"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A BERT classifier with its tokenizer and its rows."""
    return workspace(tmp_path)


def slimmed(model: Path, recipe: str, *arguments: object) -> Path:
    """Run `onnxslim slim model -p recipe -o out.onnx ARGUMENTS`; what it wrote."""
    target = model.parent / "out.onnx"
    outcome = run("slim", model, "-p", recipe, "-o", target, *arguments)
    assert (outcome.code, outcome.err) == (0, ""), outcome
    return target


def test_exact_passes_keep_the_outputs(model):
    """And write one file beside the input, no report."""
    before = contents(model.parent)
    result, source = Model.load(slimmed(model, EXACT)), Model.load(model)
    assert len(result.graph.nodes) < len(source.graph.nodes) / 4
    assert_same_outputs(result, source, [feeds(source)], atol=1e-5)
    after = contents(model.parent)
    assert {name: after[name] for name in before} == before
    assert after.keys() - before.keys() == {"out.onnx"}


def test_every_pass_says_what_it_did(model):
    outcome = run("slim", model, "-p", EXACT, "-o", model.parent / "out.onnx")
    said = outcome.out.splitlines()
    assert [line.split(":")[0] for line in said[:3]] == EXACT.split(",")
    assert said[3].startswith(f"{model.parent / 'out.onnx'}: ")
    assert said[3].endswith(" kB, from 87.1 kB")


def test_json_is_one_document(model):
    outcome = run("slim", model, "-p", EXACT, "-o", model.parent / "out.onnx", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    document = json.loads(outcome.out)
    assert [step["step"] for step in document["steps"]] == EXACT.split(",")
    assert document["source_bytes"] == model.stat().st_size
    assert document["output_bytes"] == (model.parent / "out.onnx").stat().st_size
    assert "host" in document


def test_the_result_carries_its_recipe(model):
    """As it reads back, with the rows that it was calibrated on."""
    recipe = "canonicalize?,fuse,smooth?,quantize-static{method=mse,format=qdq}"
    result = slimmed(model, recipe, "--calib", model.parent / "calib.tsv", "--rows", "12")
    noted = json.loads({entry.key: entry.value for entry in onnx.load(result).metadata_props}[KEY])
    assert (noted["recipe"], noted["calibration"]) == (recipe, "calib.tsv all, 12 rows")
    assert noted["source_sha256"] == file_sha256(model)
    assert {node.domain for node in onnx.load(result).graph.node} == {"", "com.microsoft"}


def test_a_pass_that_changes_nothing_is_an_error(model):
    """Unless it is marked with `?`, or all of them may; then the file is written."""
    fused = slimmed(model, EXACT).rename(model.parent / "fused.onnx")
    target = model.parent / "out.onnx"
    assert_refused(run("slim", fused, "-p", "first-token", "-o", target), "first-token changed nothing", "--allow-noop")
    assert not target.exists()
    slimmed(fused, "first-token?")
    target.unlink()
    slimmed(fused, "first-token", "--allow-noop")


def test_a_pass_that_reads_rows_needs_some(model):
    arguments = ["-p", "canonicalize,quantize-static", "-o", model.parent / "out.onnx"]
    assert_refused(run("slim", model, *arguments), "quantize-static needs calibration data; name some with --calib")


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("fuze", "no pass 'fuze', did you mean 'fuse'?"),
        ("fuse{stile=standard}", "fuse has no option 'stile', did you mean 'style'?"),
        ("fuse,", "recipe: cannot read ''"),
        ("smooth{gain=2}", "gain=2.0 is not in (0, 1]"),
    ],
)
def test_a_recipe_that_cannot_be_read_is_refused(model, recipe, message):
    """Before the model is read."""
    model.unlink()
    assert_refused(run("slim", model, "-p", recipe, "-o", model.parent / "out.onnx"), message)


def test_the_same_input_gives_the_same_bytes(model):
    recipe = f"{EXACT},smooth?,quantize-static,unpad"
    for number in "12":
        target = model.parent / f"{number}.onnx"
        arguments = ["slim", model, "-p", recipe, "-o", target, "--calib", model.parent / "calib.tsv"]
        assert run_process(*arguments, PYTHONHASHSEED=number).code == 0
    assert (model.parent / "1.onnx").read_bytes() == (model.parent / "2.onnx").read_bytes()


def test_nothing_is_overwritten_unasked(model):
    target = model.parent / "out.onnx"
    target.write_text("precious")
    assert_refused(run("slim", model, "-p", "fuse?", "-o", target), "out.onnx exists; give another output or --force")
    assert_refused(run("slim", model, "-p", "fuse?", "-o", model, "--force"), "model.onnx is an input")
    assert target.read_text() == "precious"
    slimmed(model, "canonicalize", "--force")


def test_in_place_replaces_the_input(model):
    """Its weights are mapped from the file that is replaced."""
    source = Model.load(model)
    outcome = run("slim", model, "-p", EXACT, "--in-place", "--json")
    assert outcome.code == 0
    document = json.loads(outcome.out)
    assert document["source_bytes"] > document["output_bytes"] == model.stat().st_size
    assert_same_outputs(Model.load(model), source, [feeds(source)], atol=1e-5)


def test_external_data_are_taken_in(tmp_path):
    model = workspace(tmp_path)
    onnx.save_model(onnx.load(model), model, save_as_external_data=True, location="weights.bin", size_threshold=500)
    outcome = run("slim", model, "-p", EXACT, "-o", tmp_path / "out.onnx", "--json")
    nbytes = model.stat().st_size + (tmp_path / "weights.bin").stat().st_size
    assert json.loads(outcome.out)["source_bytes"] == nbytes
    (tmp_path / "weights.bin").unlink()
    whole = Model.load(tmp_path / "out.onnx")
    assert all(np.isfinite(constant.values).all() for constant in whole.constants().values())


def test_a_recipe_without_canonicalize_is_as_quiet(model, tmp_path):
    """In a process of its own: the graph library writes warnings to stdout unless it is told not to."""
    done = run_process("slim", model, "-p", "fuse", "-o", tmp_path / "fused.onnx", "--json")
    assert (done.code, done.err) == (0, "")
    assert json.loads(done.out)["steps"][0]["step"] == "fuse"


STRUCTURE = "canonicalize?,fuse,prune-heads{keep=0.5},prune-ffn{keep=0.5},first-token,quantize-static"


def test_pruning_and_quantization_are_one_recipe(model):
    """Which is smaller, says what it did, and is compared on the evaluation rows that were named."""
    target, folder = model.parent / "out.onnx", model.parent
    arguments = ["-p", STRUCTURE, "--calib", folder / "calib.tsv", "--data", folder / "eval.tsv", "-o", target]
    outcome = run("slim", model, *arguments, "--label-column", "label")
    assert (outcome.code, outcome.err) == (0, "")
    assert re.search(r"^prune-heads\{keep=0.5\}: \d+ of \d+ heads removed", outcome.out, re.MULTILINE)
    assert re.search(r"^eval.tsv all, 24 rows; intervals hold with 95 %$", outcome.out, re.MULTILINE)
    assert re.search(r"^accuracy: .* -> .*, drop ", outcome.out, re.MULTILINE)
    assert target.stat().st_size < model.stat().st_size / 2


def test_evaluation_rows_are_no_calibration_rows(model):
    rows = model.parent / "calib.tsv"
    arguments = ["-p", STRUCTURE, "--calib", rows, "--data", rows, "-o", model.parent / "out.onnx"]
    assert_refused(run("slim", model, *arguments), "calibration rows are evaluation rows too")


def with_pieces(folder: Path) -> None:
    """A WordPiece tokenizer of as many tokens: special ones, characters, and words from w0 on."""
    pieces = [*SPECIAL, "w", *(f"##{digit}" for digit in range(10)), *(f"w{word}" for word in range(22))]
    backend = tokenizers.Tokenizer(
        tokenizers.models.WordPiece({piece: number for number, piece in enumerate(pieces)}, unk_token="[UNK]")
    )
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    backend.add_special_tokens(list(SPECIAL))
    backend.save(str(folder / "tokenizer.json"))


def test_a_corpus_says_which_tokens_stay(model):
    """Its hash is noted; special tokens and characters stay besides."""
    folder = model.parent
    with_pieces(folder)
    (folder / "corpus.txt").write_text("w0 w1 w2\nw3 w3\n")
    arguments = ["-p", "canonicalize?,trim-vocabulary", "--calib", folder / "calib.tsv", "-o", folder / "out.onnx"]
    outcome = run("slim", model, *arguments, "--corpus", folder / "corpus.txt", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    document = json.loads(outcome.out)
    assert document["steps"][1]["details"]["tokens"] == len(SPECIAL) + 11 + 4
    assert document["provenance"]["corpus"] == "corpus.txt all, 2 rows"
    assert len(document["provenance"]["corpus_sha256"]) == 64
    trimmed = Model.load(folder / "out.onnx").encoder.embeddings
    assert (trimmed.vocabulary, trimmed.map is not None) == (37, True)


def test_scripts_that_the_texts_do_not_have_are_named(model):
    """Their words are gone: one line says which, and it is in the report."""
    folder = model.parent
    write_tokenizer(
        folder, [*(f"w{number}" for number in range(13)), *(f"да{letter}" for letter in "абвгдежзийклмнопрсту")]
    )
    arguments = ["-p", "canonicalize?,trim-vocabulary", "--calib", folder / "calib.tsv", "-o", folder / "out.onnx"]
    outcome = run("slim", model, *arguments)
    assert outcome.code == 0
    assert "warning: the texts have next to nothing in Cyrillic (20 tokens): " in outcome.out
    (folder / "corpus.txt").write_text("даа даб\nw0 w1\n")
    outcome = run("slim", model, *arguments, "--corpus", folder / "corpus.txt", "--force", "--json")
    assert json.loads(outcome.out)["steps"][1]["details"]["lost_scripts"] == {}


def test_a_rewritten_tokenizer_lies_beside_the_output(model, tmp_path):
    """Texts of kept tokens are answered as before, now without the map; the old tokenizer stays what it was."""
    folder, other = model.parent, tmp_path / "small"
    other.mkdir()
    with_pieces(folder)
    before = contents(folder)
    (other / "kept.tsv").write_text("sentence\tlabel\n" + "".join(f"w{i} w{i + 1}\t{i % 5}\n" for i in range(9)))
    (other / "calib.txt").write_text("w0 w1 w2 w3 w4\nw5 w6 w7\nw8 w9 w0\n")
    arguments = ["-p", "canonicalize?,trim-vocabulary", "--calib", other / "calib.txt", "--rewrite-tokenizer"]
    outcome = run("slim", model, *arguments, "--data", other / "kept.tsv", "-o", other / "model.onnx")
    assert (outcome.code, outcome.err) == (0, "")
    assert "rewrite-tokenizer: 25 tokens, from 37; calibration texts are 0.0% longer in tokens" in outcome.out
    assert "agreement: 100.00" in outcome.out
    small = Model.load(other / "model.onnx").encoder.embeddings
    assert (small.vocabulary, small.map) == (25, None)
    assert len(json.loads((other / "tokenizer.json").read_text())["model"]["vocab"]) == 25
    assert before.items() <= contents(folder).items()
    beside = run("slim", model, *arguments, "-o", folder / "out.onnx", "--force")
    assert_refused(beside, "tokenizer.json is an input; give another output")
    assert not (folder / "out.onnx").exists()


def test_a_tokenizer_is_rewritten_only_behind_a_map(model, tmp_path):
    (tmp_path / "small").mkdir()
    arguments = ["-p", "canonicalize?,quantize-static", "--calib", model.parent / "calib.tsv", "--rewrite-tokenizer"]
    outcome = run("slim", model, *arguments, "-o", tmp_path / "small" / "out.onnx")
    assert_refused(outcome, "the word table is read without a map; run trim-vocabulary first")
    assert not contents(tmp_path / "small")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-p", "fuse", "--batch", "8"], "--batch does nothing without a target"),
        (["-p", "fuse", "--max-drop", "1"], "a budget for the drop or the agreement needs evaluation texts"),
        (["-p", "fuse", "--target-speedup", "2"], "give either a recipe (-p) or a target"),
        (["--target-speedup", "4", "--calib", "c.tsv", "--allow-noop"], "--allow-noop does nothing with a target"),
        (["--target-speedup", "4", "--corpus", "c.tsv"], "--corpus does nothing without --calib"),
        (["--target-speedup", "0.5", "--calib", "c.tsv"], "--target-speedup 0.5 is no speed-up; give more than 1"),
        (["--target-size", "many", "--calib", "c.tsv"], "many"),
        (["--max-drop", "1"], "a search measures on calibration texts"),
    ],
)
def test_what_would_be_ignored_or_cannot_be_is_refused(model, arguments, message):
    assert_refused(run("slim", model, "-o", model.parent / "out.onnx", *arguments), message)


def test_a_recipe_for_another_target_is_judged_and_recorded_for_it(model):
    """A time on the CPU says nothing of a phone."""
    target = model.parent / "out.onnx"
    arguments = ("-p", "canonicalize", "--target", "coreml", "--seq", "7", "--min-speedup", "1000", "-o", target)
    outcome = run("slim", model, *arguments)
    assert outcome.code == 0, outcome
    assert "CoreMLExecutionProvider would take" in outcome.out
    assert "min-speedup inconclusive" in outcome.out
    _, measured = read(target)
    assert measured is not None
    assert (measured.target, measured.max_length) == ("coreml", 7)
    assert_refused(
        run("slim", model, *arguments, "--force", "--allow-fallback", "--target", "cpu"), "--seq does nothing"
    )
    assert_refused(run("slim", model, "-p", "fuse", "-o", target, "--force", "--allow-fallback"), "nothing for cpu")


def test_a_speedup_needs_no_rows(model):
    """It is timed on no more tokens than the model has positions for."""
    options = ("--min-speedup", "0.01", "--threads", "1", "--seed", "2", "--max-length", "100")
    outcome = run("slim", model, "-p", "canonicalize?,fuse", "-o", model.parent / "out.onnx", *options)
    assert outcome.code == 0, outcome
    assert "min-speedup met" in outcome.out


def test_a_result_for_another_target_is_placed_and_proven_as_far_as_that_goes(model):
    """Its fixed length is that of both models' rows; rows of largest difference are named on request."""
    recipe = lowered(Recipe.parse("canonicalize,prune-heads{keep=0.5,even=true,refit=false}"), "coreml", 7)
    sources = Sources(str(model.parent / "calib.tsv"), str(model.parent / "eval.tsv"))
    coreml, output = Deployment("coreml", (7,)), model.parent / "out.onnx"
    made = run_job(Job(model, output, recipe, sources, coreml, worst=4, damages=True))
    assert made.placement is not None
    assert made.placement.total > 0
    assert "nothing was run on it" in made.unproven
    assert made.proven_on == "cpu"
    assert made.comparison is not None
    assert made.comparison.rows == 24
    assert 1 <= len(made.worst) <= 4
    assert all(len(one.text) == 1 and one.distance > 0 for one in made.worst)
    exact, pruned, *others = made.steps
    fixed = next(step for step in others if step.step.startswith("fix-shapes"))
    assert exact.damage is not None
    assert pruned.damage is not None
    assert exact.damage < 1e-5 < pruned.damage == pytest.approx(fixed.damage, rel=1e-2)


def test_the_model_after_each_step_is_kept_and_measured(model):
    """Those that changed something, in order, behind the source; a second run replaces what the first one left."""
    folder = model.parent / "steps"
    options = ["--data", model.parent / "eval.tsv", "--calib", model.parent / "calib.tsv", "--keep-steps", folder]
    recipe = "canonicalize,fuse,fuse?,prune-ffn{keep=0.5},quantize-static"
    outcome = run("slim", model, "-p", recipe, "-o", model.parent / "out.onnx", *options)
    assert outcome.code == 0, outcome
    names = ["01-canonicalize", "02-fuse", "04-prune-ffn", "05-quantize-static"]
    assert sorted(path.name for path in folder.iterdir()) == [*(f"{name}.onnx" for name in names), "steps.json"]
    rows = outcome.out.splitlines()[-6:]
    assert rows[0].split() == ["after", "size", "parameters", "FLOPs", "latency", "speed-up", "accuracy", "drop"]
    assert [row.split()[0] for row in rows[1:]] == ["model", *names]
    measured = {step["step"]: step for step in json.loads((folder / "steps.json").read_text())}
    assert measured["02-fuse"]["flops"] == measured["model"]["flops"] > measured["04-prune-ffn"]["flops"]
    assert measured["04-prune-ffn"]["parameters"] == measured["05-quantize-static"]["parameters"]
    assert measured["05-quantize-static"]["nbytes"] < measured["04-prune-ffn"]["nbytes"]
    assert measured["model"]["comparison"]["fidelity"]["max_difference"] == 0.0
    assert all(step["ms"] > 0 for step in measured.values())
    again = run("slim", model, "-p", "canonicalize", "-o", model.parent / "out.onnx", "--force", "--keep-steps", folder)
    assert again.code == 0, again
    assert sorted(path.name for path in folder.iterdir()) == ["01-canonicalize.onnx", "steps.json"]


@pytest.mark.parametrize("place", ["other", "file"])
def test_steps_are_kept_in_a_folder_of_their_own(model, place):
    """Nothing else in it is deleted, and nothing is done before that is known."""
    folder, before = model.parent / "steps", contents(model.parent)
    if place == "other":
        folder.mkdir()
    other = folder / "notes.txt" if place == "other" else folder
    other.write_text("mine")
    outcome = run("slim", model, "-p", "canonicalize", "-o", model.parent / "out.onnx", "--keep-steps", folder)
    assert_refused(outcome, f"{folder} ", "give another")
    assert other.read_text() == "mine"
    assert not (model.parent / "out.onnx").exists()
    assert {name: held for name, held in contents(model.parent).items() if name in before} == before
