"""Lets tests in every folder import `graphs` and `oracles`, which lie beside this file.

`pytest --regen` rewrites tests/golden.
"""

import gc
import signal

import pytest

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what it runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--regen", action="store_true", help="rewrite tests/golden, for the diff to be reviewed")


@pytest.fixture(autouse=True, scope="module")
def _old_objects_rest() -> None:
    # the library collects garbage to give a graph's memory back; what other tests hold need not be looked at each time
    gc.collect()
    gc.freeze()
