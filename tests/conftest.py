"""Lets tests in every folder import `graphs` and `oracles`, which lie beside this file.

`pytest --regen` rewrites tests/golden.
"""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--regen", action="store_true", help="rewrite tests/golden, for the diff to be reviewed")
