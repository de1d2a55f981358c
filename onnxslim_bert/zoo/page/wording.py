"""Numbers as the report writes them: aligned, with a dash where there is none."""

import math
from collections.abc import Mapping, Sequence

from onnxslim_bert.proof.intervals import Interval

DASH, MINUS, TIMES = "\N{EN DASH}", "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}"


def fixed(value: float | None, digits: int = 2, unit: str = "") -> str:
    """A number with so many decimals: 23.10 MB."""
    if value is None or not math.isfinite(value):
        return DASH
    return f"{value:,.{digits}f}{unit}".replace("-", MINUS)


def signed(value: float | None, digits: int = 2) -> str:
    """A difference with its sign: +0.11, 0.00."""
    if value is None or not math.isfinite(value):
        return DASH
    rounded = round(value, digits)
    return f"{rounded:+.{digits}f}".replace("-", MINUS) if rounded else f"{0:.{digits}f}"


def brief(value: float | None) -> str:
    """A number of any size with three digits that count: 0.0281, 4.1e-06."""
    if value is None or not math.isfinite(value):
        return DASH
    return f"{value:.3g}".replace("-", MINUS)


def ratio(value: float | None) -> str:
    """3.31 times."""
    return fixed(value, 2, TIMES)


def with_ends(interval: Interval | None, unit: str) -> str:
    """A value and its interval: 99.66 % (99.0 to 99.9)."""
    if interval is None or not math.isfinite(interval.value):
        return DASH
    ends = f" ({fixed(interval.low)} to {fixed(interval.high)})"
    return fixed(interval.value, unit=unit) + ends * (interval.low < interval.high)


def megabytes(nbytes: float | None) -> str:
    """Millions of bytes."""
    return DASH if nbytes is None else fixed(nbytes / 1e6)


def alike(values: Sequence[float | None]) -> list[str]:
    """Numbers with as many decimals as give the largest three digits that count."""
    largest = max((abs(value) for value in values if value is not None and math.isfinite(value)), default=0.0)
    digits = max(0, 2 - math.floor(math.log10(largest))) if largest else 0
    return [fixed(value, digits) for value in values]


def host_line(host: Mapping[str, object]) -> str:
    """The machine, as `report_json` describes it: AMD EPYC, 2 CPUs, Linux x86_64, onnxruntime 1.31.1."""
    forms = {"cpu": "{}", "cpus": "{} CPUs", "system": "{}", "onnxruntime": "onnxruntime {}"}
    return ", ".join(form.format(host[name]) for name, form in forms.items() if host.get(name))
