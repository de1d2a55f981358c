"""Products in bfloat16, where the CPU has instructions for it."""

import torch

from onnxslim_bert.machine import instruction_sets


def products_in_bfloat16(*, wanted: bool = True) -> torch.autocast:
    """A context in which PyTorch multiplies in bfloat16 where that is `wanted` and fast, and else as ever."""
    return torch.autocast("cpu", torch.bfloat16, enabled=wanted and multiplies_bfloat16())


def multiplies_bfloat16() -> bool:
    """Whether this CPU has instructions for it."""
    return bool({"AVX512-BF16", "AMX-BF16"} & set(instruction_sets()))
