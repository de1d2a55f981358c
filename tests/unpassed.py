"""`pytest --unpassed`: the tests that have not passed since the last run without it, skipped ones among them.

So an environment that gets more packages runs what it could not run before, and nothing twice. pytest's `--last-failed`
knows only what failed.
"""

import pytest

PASSED = "onnxslim/passed"


class Unpassed:
    """Keeps the names of tests that passed in pytest's cache, and leaves them out when asked to."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._asked = config.getoption("unpassed")
        self._passed = set(config.cache.get(PASSED, []) if self._asked else [])

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        left_out = [item for item in items if item.nodeid in self._passed]
        items[:] = [item for item in items if item.nodeid not in self._passed]
        if left_out:
            self._config.hook.pytest_deselected(items=left_out)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed:
            self._passed.add(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        if not hasattr(self._config, "workerinput"):  # with several processes, the one that hears of all tests
            self._config.cache.set(PASSED, sorted(self._passed))
