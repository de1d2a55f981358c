"""An engine that runs tasks on a Dask cluster; Dask decides which worker runs which, and again after a loss."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from distributed import Client
from distributed.comm.core import connect
from distributed.security import Security

from onnxslim_bert.errors import SlimError, one_line
from onnxslim_bert.zoo.engines.dask_run import DaskRun
from onnxslim_bert.zoo.engines.dask_shortage import PATIENCE_S, Shortage
from onnxslim_bert.zoo.engines.task import Doing, Ends, Started, Task
from onnxslim_bert.zoo.store.storage import absolute

CONNECT_S = 10.0


@dataclass(frozen=True)
class DaskEngine:
    """Runs tasks on the workers of the scheduler at `address`, "HOST:PORT", as many at once as they have threads.

    A task for another target than "cpu" goes to a worker that was started with `--resources "TARGET=1"`.
    patience: seconds that tasks wait where no worker could take them; `say` is told, once for each target.
    """

    address: str
    patience: float = PATIENCE_S
    say: Callable[[str], None] = logging.getLogger(__name__).warning

    def check(self) -> None:
        """Raise SlimError when no scheduler answers."""
        with self._client():
            pass

    def executes(self, target: str) -> bool:
        """As `Engine.executes`: a worker with the resource has the target."""
        return True

    def run(self, tasks: Iterable[Task], storage: str, started: Started, doing: Doing, *, alone: bool = False) -> Ends:
        """As `Engine.run`. Raises SlimError when the scheduler cannot be reached, or is lost."""
        with self._client() as client:
            shortage = Shortage(self.patience, self.say, self.address)
            yield from DaskRun(client, absolute(storage), alone).ends(tasks, started, doing, shortage)

    @contextmanager
    def _client(self) -> Iterator[Client]:
        try:
            asyncio.run(asyncio.wait_for(_greet(self.address), CONNECT_S))
            client = Client(self.address, timeout=CONNECT_S, set_as_default=False)
        except Exception as error:  # who answers may be anything: sizes read off another protocol are a MemoryError
            raise SlimError(
                f"dask://{self.address}: no Dask scheduler answered within {CONNECT_S:g} s "
                f"({one_line(error) or type(error).__name__}): start one with `dask scheduler`"
            ) from error
        with client:
            yield client


async def _greet(address: str) -> None:
    # a Client would wait for ever for somebody who accepts its connection and says nothing
    await (await connect(address, timeout=CONNECT_S, **Security().get_connection_args("client"))).close()
