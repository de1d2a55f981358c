"""The parts of the int8 recipe, as text; every recipe that ends in int8 layers is put together from them."""

import re

from onnxslim_bert.passes.skip_mask import Operator

CANONICAL = "canonicalize?"
FUSED = f"{CANONICAL},fuse?"
FIRST_TOKEN = "first-token?"
EXACT = f"{FUSED},{FIRST_TOKEN}"
STANDARD = f"{CANONICAL},fuse{{style=standard}}?,{FIRST_TOKEN}"
SMOOTHING = "split-outliers?,smooth?"


def unsmoothed(recipe: str, last: str) -> str:
    """The recipe text without SMOOTHING, and with the step `last` in place of the one that quantizes.

    Example: "fuse?,smooth?,quantize-static{method=best},skip-mask?" and "quantize-dynamic" give
    "fuse?,quantize-dynamic,skip-mask?".
    """
    steps = re.findall(r"[^,{]+(?:\{[^}]*\})?\??", recipe)
    kept = [step for step in steps if step not in SMOOTHING.split(",")]
    return ",".join(last if step.startswith("quantize-static") else step for step in kept)


def int8(
    quantize: str,
    *,
    smooth: bool = True,
    batch: bool = False,
    contrib: bool = True,
    attention: Operator = "contrib",
) -> str:
    """The recipe text that goes behind EXACT or STANDARD: the step `quantize`, and what belongs before and after it.

    smooth: make activations easier to quantize, first. batch: leave padding out (`unpad`), before anything is
    quantized, so that ranges found at run time are those of real tokens. contrib: com.microsoft's operators may be
    used, so `skip-mask` follows. attention: as which operator it writes attention.
    Example: int8("quantize-static") is "split-outliers?,smooth?,quantize-static,skip-mask?".
    """
    last = "skip-mask?" if attention == "contrib" else f"skip-mask{{attention={attention}}}?"
    steps = [SMOOTHING * smooth, "unpad" * batch, quantize, last * contrib]
    return ",".join(filter(None, steps))
