"""The main job as a recipe: a float encoder made small and fast for where it is to run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from onnxslim_bert.calibration.ranges import Method
from onnxslim_bert.errors import DataError, PassError
from onnxslim_bert.job.deployment import Deployment
from onnxslim_bert.recipes.int8 import EXACT, STANDARD, int8
from onnxslim_bert.recipes.lowering import Mode, lowering, mode_for
from onnxslim_bert.recipes.recipe import Recipe
from onnxslim_bert.targets.int8_kernels import u8s8_saturates

Format = Literal["contrib", "qdq"]
HERE = Deployment()


@dataclass(frozen=True)
class Quantization:
    """What the main job is to make.

    mode: None is the target's best measured one. method: how activation ranges follow from calibration; None chooses by
    measured fidelity. format: ONNX Runtime's own operators, or standard ones only. smooth: split outliers off and
    smooth activations before they are quantized. batch: for throughput, batches of ragged texts: padding never reaches
    a dense layer. reduce_range: keep int8 products within 16 bits; None does where this machine's kernels need it.
    """

    mode: Mode | None = None
    method: Method | None = None
    format: Format = "contrib"
    smooth: bool = True
    batch: bool = False
    reduce_range: bool | None = None


INT8 = Quantization()


def main_recipe(what: Quantization = INT8, where: Deployment = HERE) -> Recipe:
    """The passes of the main job: exact ones, which may find nothing to do, and then the others.

    Of several lengths, the recipe of the first (`Recipe.at_length` makes the others). Raises PassError for a mode that
    the target does not have, and for a choice that would be ignored.
    """
    mode = mode_for(where.target, what.mode)
    _refuse_ignored(what, mode, where.target)
    method = f"method={what.method or 'best'}"
    if where.target != "cpu":
        form, then = lowering(where.target, mode, *where.seq[:1])
        if _is_int8(mode, where.target):
            then = Recipe.parse(int8(f"quantize-static{{{method},format=qdq}}", smooth=what.smooth, contrib=False))
        return Recipe((*form.steps, *then.steps))
    if mode == "weight-only":
        return Recipe.parse(f"{STANDARD},quantize-weights")
    contrib = what.format == "contrib" and mode != "fp16"
    narrow = u8s8_saturates() if what.reduce_range is None else what.reduce_range
    last = {
        "static": f"quantize-static{{{method},format={what.format},reduce-range={str(narrow).lower()}}}",
        "dynamic": f"quantize-dynamic{{format={what.format}}}",
        "fp16": "float16",
    }[mode]
    then_text = int8(last, smooth=what.smooth and mode == "static", batch=what.batch, contrib=contrib)
    return Recipe.parse(f"{EXACT if contrib else STANDARD},{then_text}")


def default_output(source: Path, what: Quantization, where: Deployment) -> Path:
    """Beside the source: model.int8.onnx, model.fp16.onnx or model.qnn.onnx; a folder model-qnn for several lengths."""
    if len(where.seq) > 1:
        return source.with_name(f"{source.stem}-{where.target}")
    if where.target != "cpu":
        return source.with_suffix(f".{where.target}.onnx")
    return source.with_suffix(".fp16.onnx" if what.mode == "fp16" else ".int8.onnx")


def check_calibration(what: Quantization, where: Deployment, *, given: bool) -> None:
    """Raise DataError when calibration rows are missing, or would do nothing."""
    mode = mode_for(where.target, what.mode)
    if mode == "static" and not given:
        raise DataError(
            "static quantization needs calibration texts: --calib sst2, reviews or a file; or --mode dynamic"
        )
    if mode != "static" and given:
        raise DataError(f"--calib does nothing with --mode {mode}; name evaluation texts with --data")


def _is_int8(mode: Mode, target: str) -> bool:
    """Whether the mode quantizes activations with ranges that a method finds."""
    return mode == "static" and target in ("cpu", "openvino")


def _refuse_ignored(what: Quantization, mode: Mode, target: str) -> None:
    here = "" if target == "cpu" else f" for {target}"
    static = _is_int8(mode, target)
    int8_here = target == "cpu" and mode in ("static", "dynamic")
    ignored = {
        "--method": not static and what.method is not None,
        "--no-smooth": not static and not what.smooth,
        "--format qdq": not int8_here and what.format == "qdq",
        "--batch": target != "cpu" and what.batch,
        "--reduce-range": not (static and target == "cpu") and what.reduce_range is not None,
    }
    for option, given in ignored.items():
        if given:
            raise PassError(f"{option} does nothing with --mode {mode}{here}; leave it out")
