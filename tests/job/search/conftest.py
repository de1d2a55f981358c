"""No test here depends on how busy a machine is."""

import pytest
from weighing_clock import fake_bench

from onnxslim_bert.job.search import costs


@pytest.fixture(autouse=True)
def _no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "bench", fake_bench)
