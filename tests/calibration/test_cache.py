"""What was measured once is used again, to the bit, by whoever would measure the same, and by nobody else."""

from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import workspace, write_tokenizer
from graphs import batches, prepared
from kept_arrays import Kept

from onnxslim_bert.calibration import cache as cache_module
from onnxslim_bert.calibration import collect as collect_module
from onnxslim_bert.calibration.batches import Batch
from onnxslim_bert.calibration.cache import Cache, key_of
from onnxslim_bert.calibration.collect import collect, collect_once, rows_sha256
from onnxslim_bert.calibration.load_tokenizer import load_tokenizer
from onnxslim_bert.calibration.observers import OBSERVERS, Want, packed, unpacked
from onnxslim_bert.calibration.working import Working
from onnxslim_bert.job.data import Sources
from onnxslim_bert.job.job import Job
from onnxslim_bert.job.main_recipe import Quantization, main_recipe
from onnxslim_bert.job.report import Report
from onnxslim_bert.job.run import run
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.proof import evaluate_once as evaluate_once_module
from onnxslim_bert.proof.evaluate_once import evaluate_once
from onnxslim_bert.recipes.lowering import Mode
from onnxslim_bert.recipes.recipe import Recipe
from onnxslim_bert.rewriting import trials as trials_module
from onnxslim_bert.rewriting.int8 import best_method as choose_method_module
from onnxslim_bert.rewriting.trials import Trials


def assert_equal(found, expected):
    """The same types, shapes and bits."""
    assert type(found) is type(expected)
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        for name, value in expected.items():
            assert_equal(found[name], value)
    elif is_dataclass(expected):
        for field in fields(expected):
            assert_equal(getattr(found, field.name), getattr(expected, field.name))
    elif isinstance(expected, np.ndarray):
        assert found.dtype == expected.dtype
        assert found.shape == expected.shape
        assert found.tobytes() == expected.tobytes()
    else:
        assert found == expected


@pytest.mark.parametrize("other", [np.float64(1.5), 1.5000001, np.array([1.5], np.float32)])
def test_assert_equal_fails_for_another_type_or_value(other):
    with pytest.raises(AssertionError):
        assert_equal(other, 1.5)


@pytest.mark.parametrize("kind", OBSERVERS)
def test_every_statistic_survives(kind):
    """As arrays, in a file of numpy without pickles, and back: to the last bit, with the types that it had."""
    rng = np.random.default_rng(3)
    statistics = []
    for size in (7, 3):
        observer = OBSERVERS[kind]()
        for rows in (5, 300):
            values = rng.integers(0, 19, rows) if kind == "counts" else rng.normal(size=(rows, size)) / 3
            observer.update(values if kind == "counts" else values.astype(np.float32))
        statistics.append(observer.result())
    kept = Kept()
    kept.put("key", packed(kind, statistics))
    held = kept.get("key")
    assert held is not None
    for found, expected in zip(unpacked(kind, held, 2), statistics, strict=True):
        assert_equal(found, expected)


@pytest.fixture
def model() -> Model:
    return prepared("bert-ts17-eager", Canonicalize(), Fuse())


def wants_of(model: Model, *kinds: str) -> list[Want]:
    tensors = [layer.query.source for layer in model.encoder.layers] + [model.encoder.layers[0].linears["down"].source]
    return [Want(tensor, kind) for tensor in tensors for kind in kinds]


def once(kept: Kept, model: Model, wants: list[Want], rows: list[Batch], threads: int = 1):
    return collect_once(kept, model, wants, rows, rows_sha256=rows_sha256(rows), threads=threads)


def test_an_equal_sweep_is_read(model, monkeypatch):
    """Of an equal model that another process loaded, on equal rows; nothing is run."""
    wants, rows = wants_of(model, "minmax", "sample", "gram"), batches(model)
    expected, kept = collect(model, wants, rows), Kept()
    first = once(kept, model, wants, rows)
    monkeypatch.setattr(collect_module, "collect", lambda *_, **named: {} if named["tensors"] else None)
    second = once(kept, prepared("bert-ts17-eager", Canonicalize(), Fuse()), wants, batches(model))
    assert list(first) == list(second) == wants
    for want in wants:
        assert_equal(first[want], expected[want])
        assert_equal(second[want], expected[want])


def test_kinds_are_shared_one_by_one(model, monkeypatch):
    """Who wants more kinds of the same tensors collects only those, as if nothing had been there."""
    rows, kept, swept = batches(model), Kept(), []
    real = collect_module.collect

    def watched(model, wants, *given, **named):
        swept.append({want.kind for want in wants})
        return real(model, wants, *given, **named)

    monkeypatch.setattr(collect_module, "collect", watched)
    once(kept, model, wants_of(model, "histogram"), rows)
    wants = wants_of(model, "minmax", "histogram", "channel-range")
    found, expected = once(kept, model, wants, rows), collect(model, wants, rows)
    assert swept == [{"histogram"}, {"minmax", "channel-range"}]
    for want in wants:
        assert_equal(found[want], expected[want])


def test_whatever_decides_a_statistic_is_part_of_its_key(model, monkeypatch):
    """One weight, one name, one id, the padding, the order, another tensor in the sweep, threads, versions."""
    wants, rows, kept = wants_of(model, "minmax"), batches(model), Kept()
    once(kept, model, wants, rows)
    changed = model.clone()
    weight = model.encoder.layers[0].up.weight
    changed.replace(weight, model.array(weight) * np.float32(1.001))
    renamed = model.clone()
    renamed.constants()[weight].name = "another"
    renamed.changed()
    first, *others = rows
    ids = next(iter(first.feeds))
    other_id = replace(first, feeds=first.feeds | {ids: np.where(first.feeds[ids] == 5, 6, first.feeds[ids])})
    unmasked = replace(first, mask=np.ones_like(first.mask))
    variants = [
        (changed, wants, rows, 1),
        (renamed, wants, rows, 1),
        (model, wants, [other_id, *others], 1),
        (model, wants, [unmasked, *others], 1),
        (model, wants, [*others, first], 1),
        (model, wants[1:], rows, 1),
        (model, wants, rows, 2),
    ]
    for count, variant in enumerate(variants, start=2):
        once(kept, *variant)
        assert len(kept.files) == count
    monkeypatch.setattr(cache_module, "_computing", lambda: [{"onnxruntime": "another"}, ["AVX2"]])
    once(kept, model, wants, rows)
    assert len(kept.files) == len(variants) + 2
    assert not kept.got


def test_a_key_is_of_its_kind_and_content():
    keys = [key_of("a", x=1), key_of("b", x=1), key_of("a", x=2), key_of("a", y=1)]
    assert len(set(keys)) == 4
    assert key_of("a", x=1, y=[2]) == key_of("a", y=[2], x=1)
    assert all(len(key) == 64 for key in keys)


def test_large_statistics_are_not_kept(model, monkeypatch):
    wants, rows, kept = wants_of(model, "gram"), batches(model), Kept()
    monkeypatch.setattr(collect_module, "LARGEST", 100)
    once(kept, model, wants, rows)
    assert not kept.files


def test_rows_that_came_some_way_are_not_kept(model):
    """Their statistics are of states, which are large, and of a model that nobody else has."""
    rows, kept = batches(model), Kept()
    trials = Trials(model, rows, rows, working=Working(cache=kept))
    trials.moved(rows, rows).collect(model, wants_of(model, "minmax"))
    assert not kept.files
    trials.collect(model, wants_of(model, "minmax"))
    trials.collect(model, wants_of(model, "minmax"), held_back=True)
    assert len(kept.files) == len(kept.got) == 1  # the same rows


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A BERT classifier with its tokenizer and its rows."""
    return workspace(tmp_path)


def quantized(source: Path, name: str, mode: Mode = "static", cache: Cache | None = None, **named: Any) -> Report:
    sources = Sources(str(source.parent / "calib.tsv") if mode == "static" else None, str(source.parent / "eval.tsv"))
    recipe, working = main_recipe(Quantization(mode=mode)), Working(cache=cache)
    return run(Job(source, source.with_name(name), recipe, sources, working=working, timing=False, **named))


def test_nothing_that_is_measured_besides_changes_what_is_written(source, monkeypatch):
    """Without anything, with everything and a cache that is empty, and with one that is full: one model."""
    kept = Kept()
    plain = quantized(source, "plain.onnx")
    cold = quantized(source, "cold.onnx", cache=kept, worst=3, damages=True)
    monkeypatch.setattr(evaluate_once_module, "evaluate", lambda *_, **__: pytest.fail("the source was run again"))
    monkeypatch.setattr(choose_method_module, "_measure", lambda *_: pytest.fail("methods were tried again"))
    warm = quantized(source, "warm.onnx", cache=kept, worst=3, damages=True)
    written = {source.with_name(f"{name}.onnx").read_bytes() for name in ("plain", "cold", "warm")}
    assert len(written) == 1
    assert plain.comparison == cold.comparison == warm.comparison
    assert cold.worst == warm.worst
    assert len(cold.worst) == 3
    assert not plain.worst
    assert not plain.latencies
    assert all(step.damage is None for step in plain.steps)
    assert [step.damage for step in cold.steps] == [step.damage for step in warm.steps]
    exact, int8 = cold.steps[:3], cold.steps[-1]
    assert all(step.damage is not None and step.damage < 1e-5 for step in exact)
    assert int8.damage is not None
    assert int8.damage > 1e-3
    assert [step.nodes for step in plain.steps] == [step.nodes for step in warm.steps]


def test_recipes_of_one_source_share_its_answers(source, monkeypatch):
    """The main job in another mode, and a recipe of passes."""
    kept, recipe = Kept(), Recipe.parse("canonicalize?,fuse,quantize-static{method=mse}")
    sources = Sources(str(source.parent / "calib.tsv"), str(source.parent / "eval.tsv"))
    plain, output = source.with_name("plain.onnx"), source.with_name("slim.onnx")
    run(Job(source, plain, recipe, sources))
    quantized(source, "static.onnx", cache=kept)
    monkeypatch.setattr(evaluate_once_module, "evaluate", lambda *_, **__: pytest.fail("the source was run again"))
    quantized(source, "dynamic.onnx", "dynamic", cache=kept)
    slimmed = run(Job(source, output, recipe, sources, working=Working(cache=kept), worst=2, damages=True))
    assert slimmed.comparison is not None
    assert len(slimmed.worst) == 2
    exact, int8 = (step.damage for step in slimmed.steps[1:])
    assert exact is not None
    assert int8 is not None
    assert exact < 1e-5 < int8
    assert output.read_bytes() == plain.read_bytes()


def test_a_recipe_without_calibration_is_measured_on_evaluation_rows(source):
    steps = quantized(source, "dynamic.onnx", "dynamic", damages=True).steps
    assert steps[-1].damage is not None
    assert steps[-1].damage > 1e-3


def test_answers_are_of_one_file_reader_and_setting(source, tmp_path):
    kept = Kept()
    rows = Sources(None, str(source.parent / "eval.tsv")).load(0)[1]
    assert rows is not None
    tokenizer = load_tokenizer(source.parent)

    def keys(path=source, rows=rows, tokenizer=tokenizer, max_length=16, threads=1):
        evaluate_once(path, rows, Working(max_length, threads, tokenizer=tokenizer, cache=kept))
        return len(kept.files)

    first = evaluate_once(source, rows, Working(16, tokenizer=tokenizer, cache=kept))
    again = evaluate_once(source, rows, Working(16, tokenizer=tokenizer, cache=kept))
    assert (again.path, again.output, again.kind) == (first.path, first.output, first.kind)
    assert_equal(again.values, first.values)
    copy = tmp_path / "copy.onnx"
    copy.write_bytes(source.read_bytes())
    assert keys(path=copy) == 1
    assert [keys(rows=rows.take(range(9))), keys(max_length=5), keys(threads=2)] == [2, 3, 4]
    assert keys(tokenizer=replace(tokenizer, pad_id=1)) == 5
    write_tokenizer(tmp_path, ["w1", "w0"])
    assert keys(tokenizer=load_tokenizer(tmp_path)) == 6
    assert keys(tokenizer=replace(tokenizer, file=None)) == 6


def test_a_measurement_is_of_its_model_rows_and_content(model):
    """And of the model that answers rightly, and threads."""
    rows, kept = batches(model), Kept()
    counted = [0]

    def measure():
        counted[0] += 1
        return {"value": np.array(counted[0] / 3)}

    changed = model.clone()
    weight = model.encoder.layers[0].up.weight
    changed.replace(weight, model.array(weight) * np.float32(1.001))
    trials = Trials(model, rows, rows[1:], working=Working(cache=kept))
    first = trials.once("a", model, measure, x=1)
    assert_equal(
        Trials(model, batches(model), rows[1:], working=Working(cache=kept)).once("a", model, measure, x=1), first
    )
    assert counted == [1]
    trials.once("b", model, measure, x=1)
    trials.once("a", model, measure, x=2)
    trials.once("a", changed, measure, x=1)
    for other in (
        Trials(changed, rows, rows[1:], working=Working(cache=kept)),
        Trials(model, rows[1:], rows[1:], working=Working(cache=kept)),
        Trials(model, rows, rows, working=Working(cache=kept)),
        Trials(model, rows, rows[1:], working=Working(threads=2, cache=kept)),
        trials.unshared(),
    ):
        other.once("a", model, measure, x=1)
    assert counted == [9]
    assert len(kept.files) == 8


def test_recipes_with_one_beginning_share_what_it_took(source, monkeypatch):
    """What narrowing each layer does is measured once."""
    sources, kept = Sources(str(source.parent / "calib.tsv")), Kept()
    prune = "canonicalize?,fuse,prune-ffn{keep=0.5}"
    run(Job(source, source.with_name("a.onnx"), Recipe.parse(prune), sources, working=Working(cache=kept)))
    monkeypatch.setattr(
        "onnxslim_bert.rewriting.pruning.sensitivity.ResumedRows", lambda *_: pytest.fail("measured again")
    )
    longer = Recipe.parse(f"{prune},quantize-dynamic")
    run(Job(source, source.with_name("b.onnx"), longer, sources, working=Working(cache=kept)))
    monkeypatch.undo()
    run(Job(source, source.with_name("plain.onnx"), longer, sources))
    assert source.with_name("plain.onnx").read_bytes() == source.with_name("b.onnx").read_bytes()


def test_trials_without_a_cache_collect_as_ever(model, monkeypatch):
    monkeypatch.setattr(trials_module, "collect_once", lambda *_, **__: pytest.fail("there is no cache"))
    rows, wants = batches(model), wants_of(model, "minmax")
    assert Trials(model, rows, rows).collect(model, wants) == collect(model, wants, rows)
