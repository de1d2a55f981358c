"""A target that takes a file and computes something else is refused."""

from types import SimpleNamespace

import numpy as np
import pytest
from graphs import fixture

from onnxslim_bert.calibration.working import Working
from onnxslim_bert.errors import ProviderError
from onnxslim_bert.graph.sessions import open_session
from onnxslim_bert.proof import same_as_cpu
from onnxslim_bert.proof.same_as_cpu import check_same_as_cpu
from onnxslim_bert.proof.workload import Workload
from onnxslim_bert.targets.table import CPU, TARGETS

OTHER = TARGETS["openvino"]


def asked(monkeypatch, change) -> None:
    """Compare the fixture on the CPU with the same on a target whose answers `change` makes of the CPU's."""
    path = fixture("bert-ts17-sdpa")
    here, there = open_session(path), open_session(path)

    def run(session, feeds):
        return [change(x) if session is there else x for x in session.run(None, dict(feeds))]

    places = SimpleNamespace(open=lambda target, *_, **__: SimpleNamespace(session=here if target is CPU else there))
    monkeypatch.setattr(same_as_cpu, "run", run)
    check_same_as_cpu(path, OTHER, places, Workload(4, 6), Working())


@pytest.mark.parametrize("change", [lambda x: x, lambda x: x * 1.05], ids=["the same", "rounded"])
def test_small_differences_are_taken(monkeypatch, change):
    asked(monkeypatch, change)


@pytest.mark.parametrize(
    "change", [lambda x: -x, lambda x: x[::-1] + 1, lambda x: x * np.nan], ids=["signs", "rows", "NaN"]
)
def test_other_answers_are_refused(monkeypatch, change):
    with pytest.raises(ProviderError, match=r"openvino takes every node, but answers otherwise than the CPU .* by"):
        asked(monkeypatch, change)
