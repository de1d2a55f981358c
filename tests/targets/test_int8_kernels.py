"""How fast this CPU multiplies integers is measured where processor time is limited, too."""

import subprocess
import sys

import pytest

resource = pytest.importorskip("resource")


def test_a_limit_on_processor_time_leaves_products_a_time():
    """Linux then counts a process's processor time in steps that are longer than a product takes (batch systems)."""
    code = "from onnxslim_bert.targets.int8_kernels import int8_kernels; print(min(int8_kernels().gops.values()))"
    ended = subprocess.run(
        [sys.executable, "-P", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (100, 100)),
    )
    assert 0 < float(ended.stdout) < float("inf")
