"""What the coordinator of a zoo costs a job, apart from the jobs: planning, keeping account, running again, reporting.

    python tools/bench_zoo_scale.py --models 500,2000

Every model is one small encoder under a name of its own, which makes it a job of its own. One job is run for real; an
engine that takes no time then hands its result out for all of them. Prints seconds and bytes a job, which should not
grow with the number of models.
"""

import argparse
import itertools
import json
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from onnxslim_bert.zoo.engines.local import LocalEngine
from onnxslim_bert.zoo.engines.task import Doing, Ended, Ends, Started, Task
from onnxslim_bert.zoo.page.document import load_document
from onnxslim_bert.zoo.page.page import render
from onnxslim_bert.zoo.planning.zoo_file import parse_zoo
from onnxslim_bert.zoo.run import run_zoo
from onnxslim_bert.zoo.store.storage import Storage

MODEL = Path(__file__).parents[1] / "models" / "sst2-tiny"
ZOO = """
[defaults]
calib = "reviews"
[recipes.int8]
[[models]]
path = "models/*.onnx"
[run]
time = false
study = false
"""


class Silent:
    """Nobody looks on."""

    def waiting(self, tasks: object, cached: int) -> None: ...
    def started(self, task: Task, worker: str) -> None: ...
    def doing(self, task: Task, stage: str, done: int, total: int) -> None: ...
    def ended(self, task: Task, ended: Ended) -> None: ...


class Canned:
    """An engine that hands out one result, under every key."""

    def __init__(self, artefact: Path) -> None:
        self.artefact = artefact

    def executes(self, target: str) -> bool:
        """As `Engine`."""
        return True

    def run(self, tasks: Iterable[Task], storage: str, started: Started, doing: Doing, *, alone: bool = False) -> Ends:
        """As `Engine`."""
        place = Storage(storage)
        document = json.loads((self.artefact / "result.json").read_text())
        for task in tasks:
            started(task, "canned")
            target = place.local(f"objects/{task.key}")
            assert target is not None
            target.mkdir(parents=True)
            os.link(self.artefact / "model.onnx", target / "model.onnx")
            place.write(f"objects/{task.key}/result.json", json.dumps(document | {"key": task.key}).encode())
            yield Ended(task.key, "done", seconds=1.0, cpu_seconds=1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="500,2000", help="how many, with commas between")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        canned = Canned(one_artefact(work))
        print("| models | plan | first run | run again | page | run.json | page | state | peak memory |")
        print("|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
        for count in map(int, given.models.split(",")):
            print(measured(work / str(count), count, canned), flush=True)


def one_artefact(work: Path) -> Path:
    """The folder with the result of a job that was run for real."""
    zoo = laid_out(work / "one", 1)
    run_zoo(parse_zoo(ZOO, zoo), work / "one" / "out", LocalEngine(1), watch=Silent())
    (artefact,) = (work / "one" / "out" / "objects").iterdir()
    return artefact


def laid_out(folder: Path, count: int) -> Path:
    """A folder with `count` models and their tokenizer; where its zoo file would be."""
    (folder / "models").mkdir(parents=True)
    for file in MODEL.glob("*.json"):
        shutil.copy(file, folder / "models")
    shutil.copy(MODEL / "model.onnx", folder / "models" / "m0.onnx")
    for number in range(1, count):
        os.link(folder / "models" / "m0.onnx", folder / "models" / f"m{number}.onnx")
    return folder / "zoo.toml"


def measured(folder: Path, count: int, engine: Canned) -> str:
    """One row of the table."""
    zoo, out = laid_out(folder, count), folder / "out"
    times = [time.perf_counter()]
    plan = parse_zoo(ZOO, zoo)
    times.append(time.perf_counter())
    for _ in range(2):
        run_zoo(plan, out, engine, watch=Silent())
        times.append(time.perf_counter())
    page = render(load_document(out)).html
    times.append(time.perf_counter())
    costs = [f"{1e3 * (end - start) / count:.1f} ms" for start, end in itertools.pairwise(times)]
    sizes = [(out / "run.json").stat().st_size, len(page), (out / "zoo.sqlite").stat().st_size]
    kilobytes = [f"{size / count / 1e3:.2f} kB" for size in sizes]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return f"| {count} | {' | '.join([*costs, *kilobytes])} | {peak:.0f} MB |"


if __name__ == "__main__":
    main()
