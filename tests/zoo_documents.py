"""Records of a zoo run to test with: small, plausible, all of one job."""

from pathlib import Path
from typing import Any

from onnxslim_bert.calibration.working import Working
from onnxslim_bert.job.data import Sources
from onnxslim_bert.job.deployment import Deployment
from onnxslim_bert.job.main_recipe import main_recipe
from onnxslim_bert.proof.bench import Latency
from onnxslim_bert.proof.comparison import Comparison, Score
from onnxslim_bert.proof.fidelity import Fidelity
from onnxslim_bert.proof.intervals import Interval
from onnxslim_bert.recipes.provenance import Provenance
from onnxslim_bert.zoo.planning.plan import PlannedJob
from onnxslim_bert.zoo.records import Result, Timed
from onnxslim_bert.zoo.store.state import TaskState

KEY = "0" * 64


def planned(**changed: Any) -> PlannedJob:
    """A job of the main job."""
    values: dict[str, Any] = {
        "model": "bert",
        "recipe": "int8",
        "target": "cpu",
        "source": "bert.onnx",
        "text": "quantize",
        "passes": main_recipe(),
        "deployment": Deployment(),
        "working": Working(),
        "sources": Sources("reviews"),
    }
    return PlannedJob(**{**values, **changed})


def task_state(status: str, *, message: str = "", exit_code: int = 0) -> TaskState:
    """A task that ended so."""
    return TaskState(KEY, "make", "bert int8 cpu", status, 1, 0.0, 1.0, 1.0, 0.9, 10**8, message, exit_code, "host 1")


def comparison() -> Comparison:
    """A drop of 0.5 points (-1 to 2) on 200 rows."""
    drop = Interval(0.5, -1.0, 2.0)
    score = Score("accuracy", Interval(90.0, 85.0, 94.0), Interval(89.5, 84.0, 93.0), drop)
    fidelity = Fidelity(200, 0.03, 0.5, agreement=Interval(99.0, 97.0, 99.8), kl=0.001)
    return Comparison("reviews", "evaluation", 200, "ab", "logits", "classes", (score,), None, fidelity, 0, 2000, 0)


def result(**changed: Any) -> Result:
    """A model of 4 MB, from 16."""
    values: dict[str, Any] = {
        "key": KEY,
        "files": {"model.onnx": "cd"},
        "model": "model.onnx",
        "source_bytes": 16_000_000,
        "output_bytes": 4_000_000,
        "provenance": Provenance("1", "1", "1", "bert.onnx", "ef", "quantize-static", "reviews", "01"),
        "steps": (),
        "methods": {},
        "placement": None,
        "unproven": "",
        "proven_on": "cpu",
        "comparison": comparison(),
        "worst": (),
        "parts": {"embeddings": 1_000_000, "attention": 3_000_000},
    }
    return Result(**{**values, **changed})


def timed(speedup: float) -> Timed:
    """So many times as fast as its source."""
    gain = Interval(speedup, speedup * 0.99, speedup * 1.01)
    return Timed(Latency(str(Path("model.onnx")), 1, 128, 10 / speedup, 11, 12, gain), {"dense int8": 10 / speedup})
