"""Lets tests in every folder import `graphs` and `oracles`, which lie beside this file.

`pytest --regen` rewrites tests/golden.
"""

import gc

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--regen", action="store_true", help="rewrite tests/golden, for the diff to be reviewed")


@pytest.fixture(autouse=True, scope="module")
def _old_objects_rest() -> None:
    # the library collects garbage to give a graph's memory back; what other tests hold need not be looked at each time
    gc.collect()
    gc.freeze()
