"""Workers here are new processes, as users have them."""

import pytest

from onnxslim_bert.zoo.engines import process


@pytest.fixture(autouse=True)
def _in_new_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "start", process.in_new_python)
