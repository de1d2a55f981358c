"""Lets tests in every folder import `graphs` and `oracles`, which lie beside this file.

`pytest --regen` rewrites tests/golden; `pytest --unpassed` runs what has not passed yet (unpassed.py).
"""

import functools
import gc
import os
import signal
from collections.abc import Iterator

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when numpy and PyTorch are imported: workers are as many as cores

import forked
import pytest
from graphs import forget_prepared
from unpassed import Unpassed

from onnxslim_bert.graph import sessions
from onnxslim_bert.graph.patience import renewed
from onnxslim_bert.rewriting.int8 import layers, quantizers
from onnxslim_bert.targets.int8_kernels import u8s8_saturates

LONGEST = (  # a minute of CPU or more, or half of one in a few tests
    *("recipes/test_pairs.py", "zoo/test_run.py", "tools/test_trials.py", "job/test_quantize.py"),
    *(
        "job/search/test_run.py",
        "zoo/page/test_page.py",
        "passes/test_distill.py",
        "rewriting/distillation/test_executor.py",
    ),
)

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what it runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)

sessions.check_survives = lambda path, nbytes: None  # a fork for each file; tests/graph/test_survival.py has them
forked.use_forks()  # tests/graph/test_apart.py and tests/zoo/engines have new processes


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--regen", action="store_true", help="rewrite tests/golden, for the diff to be reviewed")
    parser.addoption("--unpassed", action="store_true", help="what has not passed since a run without this option")


def pytest_configure(config: pytest.Config) -> None:
    if config.pluginmanager.hasplugin("cacheprovider"):  # `-p no:cacheprovider` leaves nothing to remember in
        config.pluginmanager.register(Unpassed(config))
    config.option.loadscopereorder = False  # or pytest-xdist would begin with the files of most tests


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take longest come first, so that in the end no process works alone."""
    items.sort(key=lambda item: not item.path.as_posix().endswith(LONGEST))


@pytest.fixture(autouse=True, scope="module")
def _old_objects_rest() -> None:
    # the library collects garbage to give a graph's memory back; what other tests hold need not be looked at each time
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _patience_of_its_own() -> Iterator[None]:
    """As each command has; all tests of a process would share one."""
    with renewed():
        yield


@pytest.fixture(autouse=True)
def _no_sum_saturates(request: pytest.FixtureRequest) -> Iterator[None]:
    """On a CPU that cuts sums of two products to 16 bits, graphs get weights whose sums fit, as the main recipe does.

    So they answer what they say. `full_range` marks tests that are about the weights' range itself.
    """
    if not u8s8_saturates():
        yield
        return
    if request.node.get_closest_marker("full_range"):
        forget_prepared()
        yield
        forget_prepared()  # other tests want theirs narrow
        return
    narrow = functools.partial(_narrow, quantizers.quantize_columns)
    with pytest.MonkeyPatch.context() as patch:  # its own: tests undo theirs
        for module in (layers, quantizers):
            patch.setattr(module, "quantize_columns", narrow)
        yield


def _narrow(quantize, weight, *, reduce_range=False):
    """As `quantize` with a reduced range, asked for or not."""
    return quantize(weight, reduce_range=True)
