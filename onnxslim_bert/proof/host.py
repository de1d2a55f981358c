"""The machine on which a time was measured, as far as a reader needs it to judge the time."""

import os
import platform
from dataclasses import dataclass
from pathlib import Path

import onnxruntime as ort


@dataclass(frozen=True)
class Host:
    """cpus: that this process may use. load: mean number of runnable processes over the last minute, all users."""

    cpu: str
    cpus: int
    load: float
    system: str
    onnxruntime: str


def host() -> Host:
    """The host now."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    system = f"{platform.system()} {platform.machine()}"
    return Host(_cpu_name(), usable, round(os.getloadavg()[0], 2), system, ort.__version__)


def _cpu_name() -> str:
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text().splitlines() if listing.exists() else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())
