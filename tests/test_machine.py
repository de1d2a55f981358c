"""Instruction sets are read as the system lists them, and the advice follows from them."""

from types import SimpleNamespace

import numpy as np
import pytest

from onnxslim_bert.machine import instruction_sets, int8_advice, sets_in
from onnxslim_bert.targets import int8_kernels
from onnxslim_bert.targets.int8_kernels import PAIRINGS, u8s8_saturates

SERVER = "processor\t: 0\nmodel name\t: A CPU\nflags\t\t: fpu avx2 avx512f avx512_vnni amx_int8\n\nprocessor\t: 1\n"
PHONE = "processor\t: 0\nFeatures\t: fp asimd asimddp i8mm\nCPU part\t: 0xd40\n"


@pytest.mark.parametrize(
    ("listing", "sets"),
    [
        (SERVER, ("AVX2", "AVX512", "AVX512-VNNI", "AMX-INT8")),
        (PHONE, ("NEON", "DOTPROD", "I8MM")),
        ("processor\t: 0\n", ()),
    ],
)
def test_sets_are_those_of_the_first_processor(listing, sets):
    """x86 lists flags, ARM lists Features."""
    assert sets_in(listing) == sets


@pytest.mark.parametrize(
    ("sets", "pairing", "saturates", "words"),
    [
        (("AVX2", "AVX512-VNNI", "AMX-INT8"), "u8 x s8", False, "AMX-INT8: u8 x s8 is exact and fastest"),
        (("AVX2", "AVX-VNNI"), "u8 x s8", False, "AVX-VNNI"),
        (("AVX2", "AVX512"), "u8 x s8, reduce_range", True, "reduce_range gives up as much of the weights' range"),
        (("NEON", "DOTPROD"), "s8 x s8 or u8 x s8", False, "ARM"),
        ((), "u8 x s8", False, "measure"),
    ],
)
def test_advice_follows_from_the_sets(sets, pairing, saturates, words):
    """The strongest set decides."""
    advice = int8_advice(sets)
    assert (advice.pairing, advice.saturates) == (pairing, saturates)
    assert words in advice.note


def test_saturation_is_seen_in_the_product(monkeypatch):
    """A kernel that adds pairs in 16 bits gives 32767 for each."""

    def kernel(dtype, weights):
        pairs = weights.shape[0] // 2
        return SimpleNamespace(run=lambda names, feeds: [np.full((4, 64), pairs * 32767, np.int32)])

    monkeypatch.setattr(int8_kernels, "_session", kernel)
    assert u8s8_saturates.__wrapped__()  # unkept: this process has asked before


def test_this_machine_is_measured():
    """What the advice says of saturation is what the kernels do, where the sets are known."""
    kernels = int8_kernels.int8_kernels()
    assert list(kernels.gops) == ["float32", *PAIRINGS]
    assert min(kernels.gops.values()) > 0
    if instruction_sets():
        assert kernels.saturates == int8_advice(instruction_sets()).saturates
