"""Convert a model to ORT format, for a small build of ONNX Runtime on a phone, with ONNX Runtime's own tools."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime as ort

from onnxslim_bert.calibration.working import Working
from onnxslim_bert.errors import ModelError, OutputError
from onnxslim_bert.graph.files import check_output, model_files, staging
from onnxslim_bert.graph.naming import give_names
from onnxslim_bert.graph.native_path import check_utf8
from onnxslim_bert.graph.runtime_words import in_words
from onnxslim_bert.graph.sessions import load, open_session, run, session_options
from onnxslim_bert.graph.signature import fixed_shape
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.proof.workload import Workload, same_feeds
from onnxslim_bert.recipes.provenance import MEASURED, forget

Style = Literal["fixed", "runtime"]
BATCH, LENGTH = 2, 8  # of the random ids on which answers are compared, where the graph leaves them open
TOLERANCE = 0.01  # of the largest answer; kernels of float16 and int8 graphs may round otherwise
SAVED = "session.enable_saved_runtime_optimizations"


@dataclass(frozen=True)
class Mobile:
    """What `write_mobile` wrote.

    model: the file in ORT format; nbytes: its size. operators: the configuration of a reduced build that has the
    operators of this model. difference: the largest difference from the source's answers to random ids, divided by the
    largest answer.
    """

    model: Path
    operators: Path
    nbytes: int
    difference: float


def write_mobile(path: Path, output: Path, style: Style = "runtime") -> Mobile:
    """Write the folder `output`: the model in ORT format, and the configuration of a build that has its operators only.

    The configuration is for `build.py --minimal_build --include_ops_by_config`
    (https://onnxruntime.ai/docs/build/custom.html). The .ort file is loaded and its answers are compared before the
    folder gets its name. The same model gives the same bytes where commands can run at fixed addresses (setarch -R).

    style: "fixed" applies all optimizations of the CPU provider now, which folds casts of float16 weights into float32
    ones. "runtime" applies the basic ones and saves the others for the nodes that no other provider takes, for CoreML
    and NNAPI.
    Raises OutputError when `output` exists or cannot be made, ModelError when the model cannot be converted or its
    answers change.
    """
    if os.path.lexists(output):
        raise OutputError(f"{output} exists; give the name of a new folder")
    check_output(output, overwrite=False)
    check_utf8(output.absolute(), "ONNX Runtime's converter", OutputError)
    with staging(output) as folder:
        source, made = folder / "source" / f"{path.stem}.onnx", folder / output.name
        source.parent.mkdir()
        given = Model.load(path)
        forget(given.header, MEASURED)  # of the file as it was
        given.save(source)  # one file, beside which the tool may write
        before = open_session(path)  # first: what it folds is bounded here, and not in the tool, which folds the same
        _convert(source, made, style)
        (model,), (operators,) = made.glob("*.ort"), made.glob("*.config")
        _drop_header(operators)
        difference = largest_difference(path, before, model)
        if not difference <= TOLERANCE:
            raise ModelError(
                f"{path}: answers of the .ort file differ by {difference:.1%}, at most {TOLERANCE:.0%} was needed"
            )
        give_names([(made, output)], overwrite=False, sources=model_files(path))
    model, operators = output / model.name, output / operators.name
    return Mobile(model, operators, model.stat().st_size, difference)


def largest_difference(path: Path, before: ort.InferenceSession, converted: Path) -> float:
    """The largest |difference| of an output on random ids over its largest |value|; inf when one is not finite.

    before: a session on the model at `path`, which was `converted`.
    """
    after = _open_ort(converted)
    batch, length = fixed_shape(before)
    workload = Workload(batch or BATCH, length or LENGTH)
    named = [(path, before), (converted, after)]
    fed = same_feeds(named, workload, None, Working(), 1)
    answers = [run(session, feeds[0]) for (_, session), feeds in zip(named, fed, strict=True)]
    ratios = [
        np.abs(a.astype(np.float64) - b).max(initial=0) / max(np.abs(a).max(initial=0), np.finfo(np.float32).tiny)
        for a, b in zip(*answers, strict=True)
    ]
    return float(max(ratios)) if np.isfinite(ratios).all() else float("inf")


def _open_ort(path: Path) -> ort.InferenceSession:
    options = session_options()
    options.add_session_config_entry(SAVED, "1")
    try:
        return load(path, options)
    except ModelError as error:
        refused = f"{path.name}: ONNX Runtime cannot load what it converted, try the other style"
        raise ModelError(f"{refused} ({in_words(error.__cause__ or error)})") from error


def _convert(source: Path, made: Path, style: Style) -> None:
    """Let ONNX Runtime's converter write into `made`, without optimizations that only x86 CPUs can run."""
    tool = [sys.executable, "-P", "-m", "onnxruntime.tools.convert_onnx_models_to_ort", str(source)]
    options = ["--output_dir", str(made), "--optimization_style", style.capitalize(), "--target_platform", "arm"]
    done = subprocess.run([*same_addresses(), *tool, *options], capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
        raise ModelError(f"{source.stem}: ONNX Runtime cannot convert it ({in_words(said[0])})")


def same_addresses() -> list[str]:
    """What to put in front of a command to run it at the same addresses each time (setarch -R); [] where none can.

    ONNX Runtime writes the contents of hash maps in their order, which depends on addresses. At other addresses the
    same model would give other bytes.
    """
    tool = shutil.which("setarch")
    allowed = tool and subprocess.run([tool, "-R", "true"], capture_output=True, check=False).returncode == 0
    return [tool, "-R"] if tool and allowed else []


def _drop_header(config: Path) -> None:
    """Remove the names of temporary files, so that the same model gives the same bytes."""
    lines = [line for line in config.read_text().splitlines() if not line.startswith("#")]
    config.write_text("\n".join(lines) + "\n")
