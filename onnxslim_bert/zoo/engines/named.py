"""The engine that a command line names."""

from urllib.parse import urlsplit

from onnxslim_bert.errors import SlimError
from onnxslim_bert.zoo.engines.dask_shortage import PATIENCE_S
from onnxslim_bert.zoo.engines.local import LocalEngine
from onnxslim_bert.zoo.engines.task import Engine

DASK = "dask://"


def engine_named(name: str, jobs: int | None = None, *, patience: float = PATIENCE_S) -> Engine:
    """The engine called "local" or "dask://HOST:PORT", with which the scheduler was reached.

    jobs: processes at once of the local engine; None is its own choice. patience: seconds that tasks wait while a Dask
    cluster has no worker that could take them, before they are given up. Raises SlimError for another name, a scheduler
    that does not answer, the extra [dask] missing, and for jobs where Dask's workers decide.
    """
    if name == "local":
        return LocalEngine() if jobs is None else LocalEngine(jobs)
    if not name.startswith(DASK):
        raise SlimError(f"no engine {name!r}: needed local or {DASK}HOST:PORT")
    if jobs is not None:
        raise SlimError(f"--jobs is for the local engine: on {name} as many run as `dask worker --nthreads` says")
    address = _address(name)
    try:
        from onnxslim_bert.zoo.engines.dask_engine import DaskEngine
    except ImportError as error:
        raise SlimError(f"{name} needs distributed: pip install 'onnxslim-bert[dask]'") from error
    engine = DaskEngine(address, patience)
    engine.check()
    return engine


def _address(name: str) -> str:
    """HOST:PORT."""
    try:
        parts = urlsplit(name)
        complete = parts.hostname and parts.port and name == f"{DASK}{parts.netloc}"
    except ValueError:  # no number, or brackets that do not close
        complete = False
    if not complete:
        raise SlimError(f"no engine {name!r}: needed {DASK}HOST:PORT, such as {DASK}10.0.0.5:8786")
    return name.removeprefix(DASK)
