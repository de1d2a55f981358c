"""The names of engines, and what is said of others; none of it needs the extra [dask]."""

import re
import sys

import pytest

from onnxslim_bert.errors import SlimError
from onnxslim_bert.zoo.engines.local import LocalEngine
from onnxslim_bert.zoo.engines.named import engine_named


@pytest.mark.parametrize(
    ("name", "jobs", "message"),
    [
        ("spark://a:1", None, "no engine 'spark://a:1': needed local or dask://HOST:PORT"),
        ("dask", None, "needed local or dask://HOST:PORT"),
        ("dask://", None, "needed dask://HOST:PORT"),
        ("dask://there", None, "needed dask://HOST:PORT"),
        ("dask://there:99999", None, "needed dask://HOST:PORT"),
        ("dask://[there:1", None, "needed dask://HOST:PORT"),
        ("dask://there:1/path", None, "needed dask://HOST:PORT"),
        ("dask://there:1", 2, "--jobs is for the local engine"),
    ],
)
def test_names_that_are_no_engine_are_refused(name, jobs, message):
    with pytest.raises(SlimError, match=re.escape(message)):
        engine_named(name, jobs)


def test_without_the_extra_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxslim_bert.zoo.engines.dask_engine", None)
    with pytest.raises(SlimError, match=re.escape("needs distributed: pip install 'onnxslim-bert[dask]'")):
        engine_named("dask://there:1")


def test_the_local_engine_has_the_jobs_that_were_asked_for():
    engine = engine_named("local", 3)
    assert isinstance(engine, LocalEngine)
    assert engine.jobs == 3
