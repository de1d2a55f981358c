"""This CPU multiplies integers right, and how fast is measured where processor time is limited, too."""

import subprocess
import sys

import numpy as np
import pytest

from onnxslim_bert.targets.int8_kernels import _session

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


@pytest.mark.parametrize("rows", [1, 31, 33, 65])
def test_products_are_right_at_every_width(rows):
    """onnxruntime 1.24 fails here on CPUs with AMX, from 32 rows on: so 1.25 is the oldest that setup.cfg allows."""
    rng = np.random.default_rng(0)
    for columns in range(1, 66):
        activations = rng.integers(0, 100, (rows, 40)).astype(np.uint8)
        weights = rng.integers(-99, 100, (40, columns)).astype(np.int8)
        (found,) = _session(activations.dtype, weights).run(None, {"x": activations})
        np.testing.assert_array_equal(found, activations.astype(int) @ weights, f"{columns} columns")
