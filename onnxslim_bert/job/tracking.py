"""A report as a run of MLflow's file store, which `mlflow ui --backend-store-uri FOLDER` shows beside other runs.

https://mlflow.org/docs/latest/self-hosting/architecture/backend-store/: a folder for an experiment, in it one for each
run; metrics, params and tags are a file each. Written by hand, so that MLflow need not be installed.
"""

import hashlib
import json
import math
import re
import time
from pathlib import Path
from typing import Any

from onnxslim_bert.errors import OutputError, disarmed
from onnxslim_bert.graph.files import staging
from onnxslim_bert.graph.naming import link_new
from onnxslim_bert.job.model_card import model_index
from onnxslim_bert.job.report import Report
from onnxslim_bert.proof.intervals import Interval

EXPERIMENT = "onnxslim-bert"
EXPERIMENT_ID = str(int(hashlib.sha256(EXPERIMENT.encode()).hexdigest()[:14], 16))  # digits, as MLflow's own
META = "meta.yaml"
FINISHED, FAILED, LOCAL = 3, 4, 4  # RunStatus and SourceType of mlflow.entities
UNFIT = re.compile(r"[^\w. /-]")  # in the name of a metric
LONGEST_PARAM = 6000  # characters that MLflow reads of a parameter


def check_tracking(folder: Path) -> None:
    """Raise OutputError when no run can be written to the file store `folder`, which need not exist."""
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} exists and is no folder; give another for the metrics")
    if not folder.parent.is_dir():
        raise OutputError(f"{folder}: no folder {folder.parent}; make it first")


def save_run(folder: Path, report: Report) -> Path:
    """Add a run to the file store `folder`, which is made where there is none, and return the run's folder.

    Raises OutputError; no partial run is left then.
    """
    check_tracking(folder)
    now = int(1000 * time.time())
    document = json.dumps(report.json(), indent=2, allow_nan=False)
    run_id = hashlib.sha256(f"{now} {document}".encode()).hexdigest()[:32]
    place = folder.resolve() / EXPERIMENT_ID / run_id
    try:
        _experiment(place.parent, now)
        with staging(place) as beside:
            made = beside / run_id
            for name, value in metrics(report).items():
                _write(made / "metrics" / name, f"{now} {value!r} 0\n")
            for name, text in params(report).items():
                _write(made / "params" / name, text[:LONGEST_PARAM])
            for name, text in {"mlflow.runName": report.output.name, "mlflow.source.name": "onnxslim"}.items():
                _write(made / "tags" / name, text)
            _write(made / "artifacts" / "report.json", document + "\n")
            if index := model_index(report, report.output.stem):
                _yaml(made / "artifacts" / "model-index.yaml", {"model-index": index})
            _yaml(made / META, _run(place, report, now))
            made.rename(place)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error.strerror}); give another for the metrics") from error
    return place


def metrics(report: Report) -> dict[str, float]:
    """The numbers of a report by name: bytes, scores in points, fidelity and times; an interval gives three."""
    found = {"bytes": float(report.output_bytes), "bytes_source": float(report.source_bytes)}
    for slow, fast in [report.latencies] if report.latencies else []:
        found |= {"latency_ms": fast.usual_ms, "latency_ms_source": slow.usual_ms, **_spread("speedup", fast.speedup)}
    if report.comparison is not None:
        for score in report.comparison.scores:
            found |= _spread(score.metric, score.candidate) | _spread(f"{score.metric}_source", score.base)
            found |= _spread(f"{score.metric}_drop", score.drop)
        for name, value in vars(report.comparison.fidelity).items():
            if isinstance(value, Interval):
                found |= _spread(name, value)
            elif isinstance(value, int | float):
                found[name] = float(value)
    return {UNFIT.sub("_", name): value for name, value in found.items() if math.isfinite(value)}


def params(report: Report) -> dict[str, str]:
    """What decided the model, by name: source, recipe, data, target and how it was measured."""
    made = report.provenance
    given = {
        "source": str(report.source),
        "source_sha256": made.source_sha256,
        "output": str(report.output),
        "recipe": made.recipe,
        "calibration": made.calibration,
        "evaluation": "" if report.comparison is None else f"{report.comparison.data} {report.comparison.split}",
        "target": report.deployment.target,
        "max_length": str(report.max_length),
        "threads": str(report.threads),
        "seed": str(report.seed),
        "onnxslim_bert": made.onnxslim_bert,
        "onnxruntime": made.onnxruntime,
    }
    verdicts = {f"verdict_{verdict.gate}": f"{verdict.outcome}: {verdict.note}" for verdict in report.verdicts}
    return {name: text for name, text in (given | verdicts).items() if text}


def _spread(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _run(place: Path, report: Report, now: int) -> dict[str, Any]:
    return {
        "artifact_uri": (place / "artifacts").as_uri(),
        "end_time": now,
        "entry_point_name": "",
        "experiment_id": EXPERIMENT_ID,
        "lifecycle_stage": "active",
        "run_id": place.name,
        "run_name": report.output.name,
        "source_name": "",
        "source_type": LOCAL,
        "source_version": "",
        "start_time": now,
        "status": FINISHED if report.published else FAILED,
        "tags": [],
        "user_id": "",
    }


def _experiment(place: Path, now: int) -> None:
    """Make the experiment's folder, unless there is one."""
    place.mkdir(parents=True, exist_ok=True)
    if (place / META).exists():
        return
    with staging(place / META) as beside:
        known = {"artifact_location": place.as_uri(), "experiment_id": EXPERIMENT_ID, "name": EXPERIMENT}
        _yaml(beside / META, {**known, "creation_time": now, "last_update_time": now, "lifecycle_stage": "active"})
        link_new(beside / META, place / META)


def _yaml(path: Path, content: dict[str, Any]) -> None:
    import yaml

    _write(path, yaml.safe_dump(content))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(disarmed(text), encoding="utf-8")
