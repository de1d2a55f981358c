"""The main job as a recipe: a float encoder made small and fast for where it is to run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from onnxslim_bert.calibration.ranges import Method
from onnxslim_bert.errors import DataError, PassError
from onnxslim_bert.job.deployment import Deployment
from onnxslim_bert.passes.skip_mask import Operator
from onnxslim_bert.recipes.int8 import EXACT, STANDARD, int8
from onnxslim_bert.recipes.lowering import Mode, lowering, mode_for
from onnxslim_bert.recipes.recipe import Recipe
from onnxslim_bert.targets.int8_kernels import u8s8_saturates

Format = Literal["contrib", "newest", "qdq"]
HERE = Deployment()


@dataclass(frozen=True)
class Quantization:
    """What the main job is to make of an encoder.

    mode: "static" or "dynamic" int8; "auto", static for as many activations as measure as well as with dynamic ranges;
    "weight-only", "fp16" or "fp32"; None takes the mode that measured best on the target. method: how activation ranges
    follow from calibration; None tries all and takes the one nearest to the source. format: "contrib" writes ONNX
    Runtime's own operators, "newest" those and attention as ONNX's operator of opset 23 (onnxruntime 1.24 and later),
    "qdq" standard ones only. smooth: split outliers off and smooth activations before they are
    quantized. batch: for batches of texts of different lengths: padding never reaches a dense layer. reduce_range: make
    the integers of weights smaller, so that the sum of two products stays within 16 bits; None does so where this
    machine's int8 kernels add in 16 bits.
    """

    mode: Mode | None = None
    method: Method | None = None
    format: Format = "contrib"
    smooth: bool = True
    batch: bool = False
    reduce_range: bool | None = None


CALIBRATED: tuple[Mode, ...] = ("auto", "static")
INT8 = Quantization()


def main_recipe(what: Quantization = INT8, where: Deployment = HERE) -> Recipe:
    """The recipe of the main job: passes that change no answer, and then those that quantize.

    For several lengths, it is the recipe of the first one; `Recipe.at_length` makes those of the others. Raises
    PassError for a mode that the target does not have, and for a choice that would have no effect.
    """
    mode = _mode(what, where)
    _refuse_ignored(what, mode, where.target)
    method = f"method={what.method or 'best'}"
    if where.is_lowered:
        form, then = lowering(where.target, mode, *where.seq[:1])
        if _is_int8(mode, where.target):
            then = Recipe.parse(int8(f"quantize-static{{{method},format=qdq}}", smooth=what.smooth, contrib=False))
        return Recipe((*form.steps, *then.steps))
    if mode == "weight-only":
        return Recipe.parse(f"{STANDARD},quantize-weights")
    contrib = what.format != "qdq" and mode != "fp16"
    attention: Operator = "onnx" if what.format == "newest" else "contrib"
    narrow = u8s8_saturates() if what.reduce_range is None else what.reduce_range
    written = f"format={'contrib' if contrib else 'qdq'},reduce-range={str(narrow).lower()}"
    static = f"{method},{written}"
    last = {
        "auto": f"quantize-static{{{static},ranges=best}}",
        "static": f"quantize-static{{{static}}}",
        "dynamic": f"quantize-dynamic{{{written}}}",
        "fp16": "float16",
    }[mode]
    smooth = what.smooth and mode in CALIBRATED
    then_text = int8(last, smooth=smooth, batch=what.batch, contrib=contrib, attention=attention)
    return Recipe.parse(f"{EXACT if contrib else STANDARD},{then_text}")


def default_output(source: Path, what: Quantization, where: Deployment) -> Path:
    """Where the result goes unless an output is named, beside the source.

    Example: for model.onnx it is model.int8.onnx or model.fp16.onnx on the CPU, model.qnn.onnx for the target "qnn",
    and the folder model-qnn for several lengths; for the folder minilm it is the folder minilm-int8, minilm-qnn, ...
    """
    if source.is_dir():
        form = default_output(Path("model.onnx"), what, where).stem.removeprefix("model").lstrip(".-")
        return source.resolve().with_name(f"{source.resolve().name}-{form}")
    if len(where.seq) > 1:
        return source.with_name(f"{source.stem}-{where.target}")
    if where.is_lowered:
        return source.with_suffix(f".{where.target}.onnx")
    return source.with_suffix(".fp16.onnx" if what.mode == "fp16" else ".int8.onnx")


def check_calibration(what: Quantization, where: Deployment, *, given: bool) -> None:
    """Raise DataError when calibration rows are missing, or would do nothing."""
    mode = _mode(what, where)
    if mode in CALIBRATED and not given:
        raise DataError(
            "static quantization needs calibration texts: --calib sst2, reviews or a file; or --mode dynamic"
        )
    if mode not in CALIBRATED and given:
        raise DataError(f"--calib does nothing with --mode {mode}; name evaluation texts with --data")


def _mode(what: Quantization, where: Deployment) -> Mode:
    """The mode that was asked for, or the target's; a method that was asked for, and no mode, asks for "static"."""
    mode = mode_for(where.target, what.mode)
    return "static" if mode == "auto" and what.mode is None and what.method is not None else mode


def _is_int8(mode: Mode, target: str) -> bool:
    """Whether the mode quantizes activations with ranges that a method finds."""
    return mode in CALIBRATED and target in ("cpu", "openvino")


def _refuse_ignored(what: Quantization, mode: Mode, target: str) -> None:
    here = "" if target == "cpu" else f" for {target}"
    static = _is_int8(mode, target)
    int8_here = target == "cpu" and mode in (*CALIBRATED, "dynamic")
    ignored = {
        "--method": not static and what.method is not None,
        "--no-smooth": not static and not what.smooth,
        f"--format {what.format}": not int8_here and what.format != "contrib",
        "--batch": target != "cpu" and what.batch,
        "--reduce-range": not int8_here and what.reduce_range is not None,
    }
    for option, given in ignored.items():
        if given:
            raise PassError(f"{option} does nothing with --mode {mode}{here}; leave it out")
