"""--save-metrics: the report as a run of MLflow's file store, which MLflow itself reads where it is installed."""

import json
from pathlib import Path

import pytest
import yaml
from command_line import assert_refused, contents, run, workspace


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with model.onnx, its quantized form and two runs in mlruns: one written, one that missed a budget."""
    folder = tmp_path_factory.mktemp("tracked")
    model = workspace(folder)
    data = ["--calib", folder / "calib.tsv", "--data", folder / "eval.tsv", "--method", "minmax"]
    store = ["--save-metrics", folder / "mlruns"]
    assert run("quantize", model, *data, *store).code == 0
    missed = run("quantize", model, *data, *store, "-o", folder / "none.onnx", "--max-size", "1kB")
    assert missed.code == 6
    return folder


def runs_in(folder: Path) -> dict[str, Path]:
    """The runs of its store by their names."""
    found = [file.parent for file in (folder / "mlruns").glob("*/*/meta.yaml")]
    return {yaml.safe_load((place / "meta.yaml").read_text())["run_name"]: place for place in found}


def test_a_run_holds_what_the_report_says(tracked: Path) -> None:
    """Metrics, params, the report itself and the hub's model-index; a missed budget is a failed run."""
    runs = runs_in(tracked)
    assert set(runs) == {"model.int8.onnx", "none.onnx"}
    place = runs["model.int8.onnx"]
    report = json.loads((tracked / "model.int8.json").read_text())
    values = {path.name: float(path.read_text().split()[1]) for path in (place / "metrics").iterdir()}
    score = report["comparison"]["scores"][0]
    assert values["accuracy"] == score["candidate"]["value"]
    assert values["accuracy_drop_high"] == score["drop"]["high"]
    assert values["bytes"] == report["output_bytes"] == (tracked / "model.int8.onnx").stat().st_size
    assert values["speedup"] == report["latencies"][1]["speedup"]["value"]
    assert (place / "params/recipe").read_text() == report["provenance"]["recipe"]
    assert json.loads((place / "artifacts/report.json").read_text())["provenance"] == report["provenance"]
    index = yaml.safe_load((place / "artifacts/model-index.yaml").read_text())["model-index"]
    assert index[0]["results"][0]["metrics"][0]["value"] == pytest.approx(score["candidate"]["value"] / 100, abs=1e-6)
    status = {name: yaml.safe_load((run / "meta.yaml").read_text())["status"] for name, run in runs.items()}
    assert status == {"model.int8.onnx": 3, "none.onnx": 4}


def test_mlflow_reads_the_store(tracked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its client finds the experiment and both runs, with their metrics."""
    mlflow = pytest.importorskip("mlflow", reason="needs the extra [test-services]")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    client = mlflow.MlflowClient(tracking_uri=(tracked / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("onnxslim-bert")
    found = {each.info.run_name: each for each in client.search_runs([experiment.experiment_id])}
    assert set(found) == {"model.int8.onnx", "none.onnx"}
    done = found["model.int8.onnx"]
    assert (done.info.status, found["none.onnx"].info.status) == ("FINISHED", "FAILED")
    assert done.data.metrics["bytes"] == (tracked / "model.int8.onnx").stat().st_size
    assert done.data.params["target"] == "cpu"
    assert {each.path for each in client.list_artifacts(done.info.run_id)} == {"report.json", "model-index.yaml"}


def test_a_place_that_cannot_be_written_is_refused_before_any_work(tmp_path: Path) -> None:
    model = workspace(tmp_path)
    before = contents(tmp_path)
    for place in ("eval.tsv", "gone/mlruns"):
        done = run("quantize", model, "--calib", tmp_path / "calib.tsv", "--save-metrics", tmp_path / place)
        assert_refused(done, place)
    assert contents(tmp_path) == before
