"""What a job costs beside its own work: in processes of this machine, and on a Dask cluster with as many workers.

    python tools/bench_zoo_engines.py --jobs 20 --rounds 10

The jobs write a result and do nothing else. Every round runs all of them on both engines, in shuffled order, and they
are compared within rounds only. The cluster is on this machine, its workers processes of one thread each, so that no
network is in the figures. Seconds a job: those of a round, times the workers, over the jobs.
"""

import argparse
import random
import tempfile
import time
from typing import Any

import numpy as np
from distributed import LocalCluster

from onnxslim_bert.arrays import Array
from onnxslim_bert.machine import host
from onnxslim_bert.proof.intervals import paired_ratio
from onnxslim_bert.zoo.engines.dask_engine import DaskEngine
from onnxslim_bert.zoo.engines.local import LocalEngine
from onnxslim_bert.zoo.engines.task import Engine, Task


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    times = measure(options.jobs, options.workers, options.rounds)
    print(f"{host().cpu}: {options.rounds} rounds of {options.jobs} jobs on {options.workers} workers\n")
    print(table(times))


def measure(jobs: int, workers: int, rounds: int) -> Array:
    """Seconds a job [rounds, 2]: on this machine's processes and on a cluster."""
    times = np.zeros((rounds, 2))
    with tempfile.TemporaryDirectory() as folder:
        cluster = local_cluster(workers, folder)
        with cluster:
            engines = LocalEngine(workers), DaskEngine(cluster.scheduler_address.removeprefix("tcp://"))
            for turn in range(-1, rounds):  # the first, which is not counted, starts what starts once
                for index in random.Random(turn).sample(range(2), 2):
                    seconds = run(engines[index], jobs)
                    if turn >= 0:
                        times[turn, index] = seconds * workers / jobs
    return times


def local_cluster(workers: int, folder: str) -> LocalCluster:
    """A cluster of this machine; what it writes goes to `folder`."""
    options: dict[str, Any] = {"dashboard_address": None, "memory_limit": 0, "local_directory": folder}
    return LocalCluster(n_workers=workers, threads_per_worker=1, **options)


def run(engine: Engine, jobs: int) -> float:
    """Seconds of all jobs. Raises RuntimeError when one of them is not done."""
    tasks = [Task(f"{number:064x}", "no_work:nothing", f"job {number}") for number in range(jobs)]
    with tempfile.TemporaryDirectory() as storage:
        begin = time.perf_counter()
        ends = list(engine.run(tasks, storage, lambda *_: None, lambda *_: None))
        seconds = time.perf_counter() - begin
    if failed := [ended for ended in ends if ended.status != "done"]:
        raise RuntimeError(f"{len(failed)} of {len(ends)} jobs failed: {failed[0].message}")
    return seconds


def table(times: Array) -> str:
    """Markdown; times: as `measure` gives them."""
    ratio = paired_ratio(times[:, 1], times[:, 0], seed=0)
    more = times[:, 1] - times[:, 0]
    local, dask = np.median(times, axis=0)
    return "\n".join(
        [
            "| engine | s a job | over local | s more than local |",
            "| --- | --: | --: | --: |",
            f"| local | {local:.3f} | | |",
            f"| dask | {dask:.3f} | {ratio.value:.2f}x ({ratio.low:.2f} to {ratio.high:.2f}) | "
            f"{np.median(more):.3f} ({more.min():.3f} to {more.max():.3f}) |",
        ]
    )


if __name__ == "__main__":
    main()
