"""The benchmark of types on tiny products: every type measured and checked; no time is held to a limit."""

import pytest
from bench_isa import WRITTEN, Rate, measure, verdict

from onnxslim_bert.proof.intervals import Interval
from onnxslim_bert.targets.int8_kernels import u8s8_saturates


def test_every_type_is_measured():
    """And told exact, u8 x s8 where this CPU adds its products in 32 bits."""
    rates = measure(3, 32, 8, rounds=3)
    assert [rate.types for rate in rates] == [
        *("float32", "float16", "u8 x s8", "u8 x s8, x64quantprecision", "u8 x u8", "s8 x s8")
    ]
    assert all(rate.gops > 0 for rate in rates)
    assert [rate.types for rate in rates if not rate.exact] == ([WRITTEN] if u8s8_saturates() else [])


@pytest.mark.parametrize(
    ("fastest", "saturates", "expected"),
    [
        (WRITTEN, False, "the cpu target writes u8 x s8: the fastest measured"),
        (WRITTEN, True, "writes u8 x s8 with reduce_range, which does not saturate: the fastest measured"),
        ("s8 x s8", False, "the cpu target writes u8 x s8: but s8 x s8 was measured fastest"),
    ],
)
def test_the_verdict_compares_with_what_is_written(fastest, saturates, expected):
    speed = {"float32": 1.0, WRITTEN: 2.0, "s8 x s8": 1.5, fastest: 3.0}
    rates = [Rate(types, 1.0, Interval(value, value, value), True) for types, value in speed.items()]
    assert expected in verdict(rates, saturates)
