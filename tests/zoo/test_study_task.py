"""A "study" task: bytes by part, and the layers' sensitivity or why there is none."""

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnx
import pytest
from command_line import workspace
from graphs import FIXTURES, fixture, prepared

from onnxslim_bert.calibration import collect
from onnxslim_bert.calibration.working import Working
from onnxslim_bert.errors import DataError, SlimError
from onnxslim_bert.graph.files import file_sha256
from onnxslim_bert.inspection.parts import PARTS
from onnxslim_bert.job.data import Sources
from onnxslim_bert.job.job import Job
from onnxslim_bert.job.run import run
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.passes.quantize_static import QuantizeStatic
from onnxslim_bert.zoo.engines.task import Task
from onnxslim_bert.zoo.records import Study
from onnxslim_bert.zoo.source_files import sources_of
from onnxslim_bert.zoo.store.array_cache import ArrayCache
from onnxslim_bert.zoo.store.storage import Storage
from onnxslim_bert.zoo.study import parts_of, study


def studied(model: Path, **asked: object) -> Study:
    payload = {
        "source": str(model),
        "source_sha256": file_sha256(model),
        "sources": asdict(Sources(str(model.parent / "calib.tsv"))),
        "tokenizer": None,
        "working": {"max_length": 128, "threads": 1, "seed": 0},
    }
    payload |= asked
    payload.setdefault("data_sha256", fingerprint(payload))
    folder = model.parent / "task"
    folder.mkdir(exist_ok=True)
    found = study(Task("k", "study", "m", payload), Storage(model.parent / "out"), folder)
    assert not list(folder.iterdir())
    return found


def fingerprint(payload: dict[str, Any]) -> str:
    """Of the calibration rows, "" where they cannot be read."""
    try:
        calibration, _ = sources_of(payload).load(0)
    except DataError:
        return ""
    return calibration.fingerprint() if calibration else ""


def stored(path: Path) -> int:
    """Bytes of the initializers, each tensor once."""
    return sum(len(onnx.numpy_helper.to_array(tensor).tobytes()) for tensor in onnx.load(path).graph.initializer)


def test_a_study_has_the_bytes_and_the_layers(tmp_path):
    model = workspace(tmp_path)
    found = studied(model)
    assert (found.key, found.reason) == ("k", "")
    assert found.parts == parts_of(model)
    assert [one.layer for one in found.layers] == [0, 1, 2]
    assert all(0 < one.alone < 1 and 0 < one.spared < 1 for one in found.layers)


@pytest.mark.parametrize("what", ["source_sha256", "tokenizer_sha256", "data_sha256"])
def test_what_has_changed_since_the_plan_is_not_studied(tmp_path, what):
    """The result would lie under the key of what was planned."""
    with pytest.raises(SlimError, match=r"changed since the run began|not those that the run was planned with"):
        studied(workspace(tmp_path), **{what: "0" * 64})


def test_the_main_job_and_a_study_share_their_sweeps(tmp_path, monkeypatch):
    """Whichever comes first."""
    model = workspace(tmp_path)
    sources = Sources(str(tmp_path / "calib.tsv"))
    cache = ArrayCache(Storage(tmp_path / "out"))
    run(Job(model, tmp_path / "q.onnx", data=sources, working=Working(cache=cache), timing=False))

    def nothing_missing(model, wants, *_, **__):
        assert not list(wants)
        return {}

    monkeypatch.setattr(collect, "collect", nothing_missing)
    assert len(studied(model).layers) == 3


def test_parts_hold_all_bytes_of_a_written_model(tmp_path):
    """Nearly: constants that canonicalizing folds away are a few numbers."""
    path = tmp_path / "m.onnx"
    prepared("bert-ts17-sdpa", Canonicalize(), Fuse()).save(path)
    parts = parts_of(path)
    assert tuple(parts) == PARTS
    assert sum(parts.values()) == pytest.approx(stored(path), rel=0.01)
    assert min(parts[name] for name in ("embeddings", "attention", "feed-forward", "head")) > 0


def test_parts_of_an_int8_model_are_smaller(tmp_path):
    path = tmp_path / "int8.onnx"
    prepared("bert-ts17-sdpa", Canonicalize(), Fuse(), QuantizeStatic()).save(path)
    before, after = parts_of(fixture("bert-ts17-sdpa")), parts_of(path)
    assert after["attention"] < 0.6 * before["attention"]


@pytest.mark.parametrize("name", ["cnn", "mlp"])
def test_what_is_no_encoder_has_no_parts(name):
    assert parts_of(FIXTURES / f"{name}.onnx") == {}


def test_without_calibration_there_is_a_reason(tmp_path):
    found = studied(workspace(tmp_path), sources=asdict(Sources()))
    assert (found.layers, found.reason) == ((), "no calibration rows; name some with `calib`")
    assert found.parts


def test_layers_that_cannot_be_measured_are_a_reason(tmp_path):
    """Shared ones, and a model that is int8 already."""
    shared = studied(workspace(tmp_path, "albert-ts17-sdpa"))
    assert "share their matrices" in shared.reason
    other = tmp_path / "int8"
    other.mkdir()
    model = workspace(other)
    shutil.copy(fixture("quantized-qdq"), model)
    assert "quantized already" in studied(model).reason


def test_rows_that_cannot_be_read_fail_the_task(tmp_path):
    with pytest.raises(DataError, match=r"none\.tsv"):
        studied(workspace(tmp_path), sources=asdict(Sources(str(tmp_path / "none.tsv"))))


def test_rows_are_those_of_the_plan(tmp_path):
    """Which leaves out what the jobs are evaluated on, and reads the columns of their file only."""
    model = workspace(tmp_path)
    (tmp_path / "own.tsv").write_text("body\tlabel\n" + "".join(f"text {row}\t{row % 2}\n" for row in range(9)))
    sources = Sources("reviews", str(tmp_path / "own.tsv"), rows=8, text_columns=("body",))
    assert len(studied(model, sources=asdict(sources)).layers) == 3
