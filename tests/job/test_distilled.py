"""Distillation in a job: from files, with texts of a corpus, none of which is evaluated on."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import ROOT, assert_refused, run

from onnxslim_bert.calibration.working import Working
from onnxslim_bert.job.data import Sources
from onnxslim_bert.job.job import Job
from onnxslim_bert.job.rows import canonical_form, make_trials
from onnxslim_bert.job.run import run as perform
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.recipes.recipe import Recipe

TINY = ROOT / "models/sst2-tiny/model.onnx"
CUT = "canonicalize?,fuse?,prune-heads{keep=0.5},prune-ffn{keep=0.1,refit=false}"
needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None,
    reason="PyTorch is not installed: pip install 'onnxslim-bert[distill]'",
)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """240 texts with labels, the first 40 of which are evaluated on."""
    words = (ROOT / "calibration/reviews.tsv").read_text(encoding="utf-8").lower().replace("\t", " ").split()
    rng = np.random.default_rng(0)
    rows = [f"{' '.join(rng.choice(words, 9))}\t{number % 2}" for number in range(240)]
    for name, part in (("corpus", rows), ("evaluated", rows[:40]), ("calib", rows[40:80])):
        (tmp_path / f"{name}.tsv").write_text("\n".join(["sentence\tlabel", *part]), encoding="utf-8")
    return tmp_path / "corpus.tsv"


def options(corpus: Path) -> list[object]:
    return ["--calib", corpus.with_name("calib.tsv"), "--data", corpus.with_name("evaluated.tsv"), "--corpus", corpus]


def test_texts_that_are_evaluated_on_are_not_among_those_to_learn_from(corpus):
    files = [str(corpus.with_name(f"{name}.tsv")) for name in ("calib", "evaluated", "corpus")]
    data, tokenizer = Sources(files[0], files[1], corpus=files[2]).read(TINY, 0)
    model = canonical_form(Model.load(TINY))
    trials = make_trials(model, data, Working(tokenizer=tokenizer), split=True)
    sampled = trials.texts(1000)
    seen = {tuple(ids[real]) for b in sampled.rows for ids, real in zip(b.feeds["input_ids"], b.mask, strict=True)}
    assert data.evaluation is not None
    assert tokenizer is not None
    evaluated = {tuple(row.ids) for row in tokenizer.encode(data.evaluation.texts, 128)}
    assert len(seen) == 200
    assert not seen & evaluated
    assert sampled.labels is not None
    assert len(sampled.labels) == 200
    assert len(trials.texts(50).rows) * 16 <= 64


@needs_torch
def test_a_recipe_distils_and_then_quantizes(corpus, tmp_path):
    """The same bytes twice, which are int8, carry the corpus, and answer more like the source than without."""
    outputs = [tmp_path / f"{name}.onnx" for name in ("first", "second", "without")]
    step = ",distill{steps=60,batch=16,texts=400,rate=0.0003}"
    said = []
    for output, between in zip(outputs, (step, step, ""), strict=True):
        recipe = f"{CUT}{between},first-token?,quantize-static,skip-mask?"
        outcome = run("slim", TINY, "-p", recipe, *options(corpus), "-o", output, "--json")
        assert outcome.code == 0, outcome
        said.append(json.loads(outcome.out))
    assert outputs[0].read_bytes() == outputs[1].read_bytes()
    differences = [document["comparison"]["fidelity"]["mean_difference"] for document in said]
    assert differences[0] < 0.8 * differences[2]
    assert said[0]["provenance"]["corpus"] == "corpus.tsv all, 200 rows"
    (distilled,) = [step for step in said[0]["steps"] if step["step"].startswith("distill")]
    loss, error = distilled["details"]["loss"], distilled["details"]["errors"][1]
    trained = f"{distilled['details']['steps']} steps, loss {loss:.3g}, held-back error {error:.3g}, torch "
    assert said[0]["provenance"]["training"].startswith(trained)
    assert said[2]["provenance"]["training"] == ""
    assert 30 <= distilled["details"]["steps"] <= 60


@needs_torch
def test_what_cannot_be_trained_writes_nothing(corpus, tmp_path):
    output = tmp_path / "out.onnx"
    outcome = run("slim", TINY, "-p", f"{CUT},quantize-static,distill", *options(corpus), "-o", output)
    assert_refused(outcome, "dense layers are quantized already", "start from the float model")
    assert not output.exists()


@needs_torch
@pytest.mark.parametrize(
    ("steps", "at", "not_again"),
    [
        ("distill{steps=40,batch=16,texts=300,rate=0.001}", 10, 8),  # judged every second step
        # in the second stage of two; the first is not trained again
        (
            "distill{steps=20,batch=16,texts=100,rate=0.0003}?,drop-layers{layers=1,refit=false},"
            "distill{steps=20,batch=16,texts=100,rate=0.0003}",
            30,
            28,
        ),
        (
            "quantize-static,distill{quantized=true,layer-epochs=1,steps=20,batch=16,texts=100,rate=0.00001}",
            10,
            8,
        ),
    ],
)
def test_a_job_that_was_interrupted_goes_on_where_it_was(steps, at, not_again, corpus, tmp_path, monkeypatch):
    """The same bytes as of a job that was left alone, in the steps that were missing; nothing is left behind.

    Layers that were trained by themselves before are not trained again.
    """
    from onnxslim_bert.rewriting.distillation import distil, training

    step, done, fit_layers, fits = training._step, 0, distil.fit_layers, list[Any]()

    def counted(*given: Any) -> float:
        nonlocal done
        done += 1
        if done == stop_at:
            raise KeyboardInterrupt
        return step(*given)

    def job(name: str) -> Job:
        calib, data = (str(corpus.with_name(f"{part}.tsv")) for part in ("calib", "evaluated"))
        recipe = Recipe.parse(f"{CUT},{steps}")
        return Job(TINY, tmp_path / name, recipe, Sources(calib, data, corpus=str(corpus)), timing=False)

    monkeypatch.setattr(training, "_step", counted)
    monkeypatch.setattr(distil, "fit_layers", lambda *given: fits.append(given) or fit_layers(*given))
    stop_at, kept = 0, tmp_path / "stopped.onnx.unfinished"
    perform(job("whole.onnx"))
    whole, done, stop_at = done, 0, at
    with pytest.raises(KeyboardInterrupt):
        perform(job("stopped.onnx"))
    assert {path.suffix for path in kept.iterdir()} == {".npz"}
    assert not (tmp_path / "stopped.onnx").exists()
    done, stop_at = 0, 0
    perform(job("stopped.onnx"))
    assert done == whole - not_again
    assert (tmp_path / "stopped.onnx").read_bytes() == (tmp_path / "whole.onnx").read_bytes()
    assert not kept.exists()
    assert len(fits) == (2 if "layer-epochs" in steps else 0)  # of the job that was left alone and the one that was not
