"""The int8 recipe, part by part: every recipe that ends in int8 layers is put together from these."""

CANONICAL = "canonicalize?"
FUSED = f"{CANONICAL},fuse?"
FIRST_TOKEN = "first-token?"
EXACT = f"{FUSED},{FIRST_TOKEN}"
STANDARD = f"{CANONICAL},fuse{{style=standard}}?,{FIRST_TOKEN}"
SMOOTHING = "split-outliers?,smooth?"


def int8(quantize: str, *, smooth: bool = True, batch: bool = False, contrib: bool = True) -> str:
    """The steps around `quantize`, which comes after an exact form of the graph.

    smooth: make activations easier to quantize first. batch: leave padding out before anything is quantized, so that
    ranges found at run time are those of real tokens. contrib: operators of ONNX Runtime's own may follow.
    """
    steps = [SMOOTHING * smooth, "unpad?" * batch, quantize, "skip-mask?" * contrib]
    return ",".join(filter(None, steps))
