"""The benchmark of the zoo's engines on two jobs; no time is held to a limit."""

import numpy as np
import pytest

pytest.importorskip("distributed", reason="needs the extra [dask]")

from bench_zoo_engines import measure, run, table

from onnxslim_bert.zoo.engines.task import Ended


def test_both_engines_are_measured():
    times = measure(2, 1, 1)
    assert times.shape == (1, 2)
    assert times.min() > 0


def test_the_table_compares_within_rounds():
    """Rounds that are twice as slow for both do not change the ratio."""
    lines = table(np.array([[0.1, 0.2], [0.2, 0.4], [0.4, 0.8]])).splitlines()
    assert lines[2] == "| local | 0.200 | | |"
    assert lines[3] == "| dask | 0.400 | 2.00x (2.00 to 2.00) | 0.200 (0.100 to 0.400) |"


def test_a_job_that_fails_is_no_time():
    class Broken:
        def run(self, tasks, storage, started, doing, *, alone=False):
            return (Ended(task.key, "crashed", "no module") for task in tasks)

    with pytest.raises(RuntimeError, match="2 of 2 jobs failed: no module"):
        run(Broken(), 2)
