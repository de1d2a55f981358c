"""A "time" task: who is timed with whom on which rows, and where the milliseconds go."""

from dataclasses import replace
from pathlib import Path

import pytest
from graphs import fixture, prepared

from onnxslim_bert.errors import ModelError
from onnxslim_bert.graph.files import file_sha256
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.fix_shapes import FixShapes
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.proof.profile import KINDS
from onnxslim_bert.proof.workload import Workload
from onnxslim_bert.rewriting.contract import Pass
from onnxslim_bert.targets.table import CPU, TARGETS
from onnxslim_bert.zoo import timing
from onnxslim_bert.zoo.engines.task import Task
from onnxslim_bert.zoo.records import Timing
from onnxslim_bert.zoo.store.storage import Storage
from onnxslim_bert.zoo.timing import by_workload, scaled, shape_of, time_models, why_not_timed

USUAL = Workload(1, 128)
ANY = (None, None)


@pytest.mark.parametrize(
    ("source", "outputs", "expected"),
    [
        (ANY, {"a": ANY, "b": ANY}, {USUAL: ["a", "b"]}),
        (ANY, {}, {USUAL: []}),
        ((4, None), {}, {Workload(4, 128): []}),
        (ANY, {"a": (1, 64), "b": ANY}, {USUAL: ["b"], Workload(1, 64): ["a"]}),
        (ANY, {"a": (4, 256), "b": (4, 256)}, {Workload(4, 256): ["a", "b"]}),
        ((2, 32), {"a": ANY, "b": (2, 64)}, {Workload(2, 32): ["a", "b"]}),
        (ANY, {"a": (3, None)}, {Workload(3, 128): ["a"]}),
    ],
)
def test_outputs_of_one_shape_are_timed_together(source, outputs, expected):
    found = by_workload(source, outputs, USUAL)
    assert found == expected
    assert list(found) == list(expected)


def test_a_profile_is_brought_to_the_latency():
    assert scaled({"a": 1.0, "b": 3.0}, 2.0) == {"a": 0.5, "b": 1.5}
    assert scaled({"a": 0.0}, 2.0) == {"a": 0.0}


def timed(out: Path, outputs: dict[str, str], target: str = "cpu", **asked: object) -> Timing:
    """The outcome of the task for the outputs {key: file} in the storage `out`."""
    payload = {
        "source": str(fixture("bert-ts17-eager")),
        "source_sha256": file_sha256(fixture("bert-ts17-eager")),
        "target": target,
        "outputs": {key: {"model": file} for key, file in outputs.items()},
        "rounds": 3,
        "batch": 2,
        "length": 8,
        "threads": 1,
        "seed": 0,
        "max_length": 128,
    }
    payload |= asked
    folder = out / "task"
    folder.mkdir(parents=True)
    found = time_models(Task("k", "time", "bert cpu", payload), Storage(out), folder)
    assert not list(folder.iterdir())
    return found


def keep(out: Path, key: str, file: str, *steps: Pass) -> None:
    """Put the fixture after `steps` where a task's results are."""
    path = out / "objects" / key / file
    path.parent.mkdir(parents=True)
    prepared("bert-ts17-eager", *steps).save(path)


def test_everything_is_timed_against_the_source(tmp_path):
    """Models of a fixed shape with the source at that shape, the others at the one that was asked for."""
    keep(tmp_path, "open", "model.onnx", Canonicalize(), Fuse())
    keep(tmp_path, "fixed", "model/model.5.onnx", Canonicalize(), FixShapes(batch=1, seq=5))
    found = timed(tmp_path, {"open": "model.onnx", "fixed": "model/model.5.onnx"})
    assert (found.key, found.target, found.rounds, found.threads, found.reason) == ("k", "cpu", 3, 1, "")
    assert found.host.onnxruntime
    assert found.source is not None
    one, other = found.outputs["open"], found.outputs["fixed"]
    assert [(at.latency.batch, at.latency.length) for at in (found.source, one, other)] == [(2, 8), (2, 8), (1, 5)]
    assert [at.latency.model for at in (found.source, other)] == ["bert-ts17-eager.onnx", "model.5.onnx"]
    assert found.source.latency.speedup.value == 1
    for each in (found.source, one, other):
        assert tuple(each.profile) == KINDS
        assert sum(each.profile.values()) == pytest.approx(each.latency.median_ms)
        assert each.profile["dense float"] > 0


def test_a_source_that_has_changed_is_not_timed(tmp_path):
    with pytest.raises(ModelError, match="changed since the run began"):
        timed(tmp_path, {}, source_sha256="0" * 64)


def test_rows_are_no_longer_than_texts_are_cut_to_or_the_model_has_positions(tmp_path):
    found = timed(tmp_path, {}, max_length=6)
    assert found.source is not None
    assert found.source.latency.length == 6
    limit = timed(tmp_path / "more", {}, length=4000, max_length=4000).source
    assert limit is not None
    assert limit.latency.length is not None
    assert limit.latency.length < 4000


def test_results_that_are_no_local_files_are_fetched(tmp_path, monkeypatch):
    """With the files beside them."""
    keep(tmp_path, "a", "model/model.5.onnx", Canonicalize(), FixShapes(batch=1, seq=5))
    (tmp_path / "objects" / "a" / "model" / "model.data").write_bytes(b"")
    monkeypatch.setattr(Storage, "local", lambda *_: None)
    fetched: list[str] = []
    real = Storage.fetch
    monkeypatch.setattr(Storage, "fetch", lambda self, name, path: fetched.append(name) or real(self, name, path))
    found = timed(tmp_path, {"a": "model/model.5.onnx"})
    assert list(found.outputs) == ["a"]
    assert fetched == ["objects/a/model/model.5.onnx", "objects/a/model/model.data"]


def test_what_does_not_execute_here_has_a_reason(tmp_path, monkeypatch):
    """Nothing is opened for it, not even the source."""
    absent = next(target for target in ("coreml", "nnapi") if TARGETS[target].absent())
    monkeypatch.setattr(timing, "bench", lambda *_, **__: pytest.fail("timed"))
    found = timed(tmp_path, {"a": "none.onnx"}, target=absent)
    assert (found.source, found.outputs, found.target) == (None, {}, absent)
    assert found.reason == TARGETS[absent].absent()


def test_an_emulator_has_a_reason():
    assert "whose times say nothing of a device" in why_not_timed(replace(CPU, emulated=True))
    assert why_not_timed(CPU) == ""


def test_shapes_are_read_off_the_file(tmp_path):
    keep(tmp_path, "a", "m.onnx", Canonicalize(), FixShapes(batch=3, seq=7))
    assert shape_of(tmp_path / "objects/a/m.onnx") == (3, 7)
    assert shape_of(fixture("bert-ts17-eager")) == ANY
