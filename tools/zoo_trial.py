"""Put a zoo on trial: undisturbed, unchanged, killed at random moments, and on Dask workers; same artefacts each time.

    python tools/zoo_trial.py exports/*.onnx models/sst2-tiny/model.onnx --calib sst2 --work trial --kills 20 --dask 2

Every model is written by five recipes, the last one given by four of them. Prints the wall time of each run, what a job
costs, and whether every artefact is the same byte for byte.
"""

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

ZOO = """
[defaults]
calib = {calib}
memory = "4GB"
timeout = "20min"
budgets = {{ max-drop = 1.0, min-agreement = 97 }}

[recipes]
int8 = {{}}
dynamic = {{ mode = "dynamic" }}
weights = {{ mode = "weight-only" }}
neurons = {{ passes = "canonicalize?,fuse,first-token?,prune-ffn{{keep=0.75}},quantize-static" }}
batch = {{ batch = true }}
"""
MODEL = """
[[models]]
path = {path}
name = {name}
"""
FOUR = 'recipes = ["int8", "dynamic", "weights", "neurons"]'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--calib", default="sst2")
    parser.add_argument("--work", type=Path, required=True, help="folder for the runs; made anew")
    parser.add_argument("--jobs", type=int, default=2, help="processes at once")
    parser.add_argument("--kills", type=int, default=0, help="SIGKILLs at random moments")
    parser.add_argument("--dask", type=int, default=0, help="workers of a cluster on this machine")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    shutil.rmtree(given.work, ignore_errors=True)
    given.work.mkdir(parents=True)
    zoo = given.work / "zoo.toml"
    zoo.write_text(zoo_of(given.models, given.calib))

    calm = given.work / "calm"
    seconds = run(zoo, calm, given.jobs)
    expected = artefacts(calm)
    rows = json.loads((calm / "run.json").read_text())["rows"]
    print(f"undisturbed: {seconds:.1f} s wall, {len(rows)} jobs, {Counter(row['status'] for row in rows)}")
    cpu = sum(row["cpu_seconds"] for row in rows)
    print(f"  {cpu / len(rows):.1f} s of CPU a job, most memory {max(row['peak_bytes'] for row in rows) / 1e6:.0f} MB")
    print(f"  beside the jobs' own seconds: {beside(calm, seconds, given.jobs) / len(rows):.2f} s a job")
    again = run(zoo, calm, given.jobs)
    print(f"unchanged, run again: {again:.1f} s wall; {same(artefacts(calm), expected)}")
    if given.kills:
        out = given.work / "killed"
        killed = kill_at_random(zoo, out, given.jobs, given.kills, seconds, random.Random(given.seed))
        print(f"killed {given.kills} times: {same(artefacts(out), expected)}")
        more = {key: ran - 1 - killed[key] for key, ran in attempts(out).items()}
        print(f"  processes lost {sum(killed.values())}, begun again {sum(n - 1 for n in attempts(out).values())}")
        print(f"  tasks begun more often than they were killed: {sum(extra > 0 for extra in more.values())}")
    if given.dask:
        out = given.work / "dask"
        from bench_zoo_engines import local_cluster  # only here, as it needs the extra [dask]

        cluster = local_cluster(given.dask, str(given.work))
        with cluster:
            address = f"dask://{cluster.scheduler_address.removeprefix('tcp://')}"
            far = run(zoo, out, given.jobs, "--engine", address)
        print(f"dask, {given.dask} workers: {far:.1f} s wall; {same(artefacts(out), expected)}")
        print(f"  beside the jobs' own seconds: {beside(out, far, given.dask) / len(rows):.2f} s a job")


def zoo_of(models: list[Path], calib: str) -> str:
    """The zoo file."""
    names = [path.stem if path.stem != "model" else path.parent.name for path in models]
    entries = [
        MODEL.format(path=json.dumps(str(path.resolve())), name=json.dumps(name))
        for path, name in zip(models, names, strict=True)
    ]
    return ZOO.format(calib=json.dumps(calib)) + "".join(entries) + FOUR + "\n"


def command(zoo: Path, out: Path, jobs: int, *more: str) -> list[str]:
    """The run as a user starts it."""
    local = ["--jobs", str(jobs)] if not more else []
    return [sys.executable, "-m", "onnxslim_bert", "zoo", "run", str(zoo), "-o", str(out), *local, *more]


def run(zoo: Path, out: Path, jobs: int, *more: str) -> float:
    """Run to the end; seconds of wall time. A failing job does not stop the trial."""
    began = time.monotonic()
    with (out.parent / f"{out.name}.log").open("ab") as log:
        subprocess.run(command(zoo, out, jobs, *more), stdout=log, stderr=log, check=False)
    return time.monotonic() - began


def kill_at_random(zoo: Path, out: Path, jobs: int, kills: int, seconds: float, chance: random.Random) -> Counter[str]:
    """Start the run `kills` times, kill it each time, and let it end; how often each task was running at a kill."""
    killed: Counter[str] = Counter()
    for _ in range(kills):
        with (out.parent / f"{out.name}.log").open("ab") as log:
            child = subprocess.Popen(command(zoo, out, jobs), stdout=log, stderr=log, start_new_session=True)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(chance.uniform(0, 2 * seconds / kills))
        if chance.random() < 0.5:
            child.kill()  # its workers have to notice
        else:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        killed.update(running(out))
    run(zoo, out, jobs)
    return killed


def running(out: Path) -> list[str]:
    """The keys of the tasks that the state says to be running."""
    return [key for key, status, _ in state(out) if status == "running"]


def attempts(out: Path) -> dict[str, int]:
    """How often each task began."""
    return {key: begun for key, _, begun in state(out)}


def state(out: Path) -> list[tuple[str, str, int]]:
    """Key, status and attempts of every task."""
    if not (out / "zoo.sqlite").exists():
        return []
    with contextlib.closing(sqlite3.connect(out / "zoo.sqlite")) as connection:
        return connection.execute("SELECT key, status, attempts FROM tasks").fetchall()


def beside(out: Path, seconds: float, jobs: int) -> float:
    """Of the `seconds` that the run took, those in which no place for a job was busy with one; timings run alone."""
    with contextlib.closing(sqlite3.connect(out / "zoo.sqlite")) as connection:
        taken = connection.execute("SELECT kind, seconds FROM tasks").fetchall()
    return seconds - float(sum(own if kind == "time" else own / jobs for kind, own in taken))


def artefacts(out: Path) -> dict[str, str]:
    """sha256 of every file that a job wrote; what tells of times and hosts is left out."""
    files = [path for path in (out / "objects").rglob("*") if path.is_file() and path.name != "result.json"]
    return {path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def same(found: dict[str, str], expected: dict[str, str]) -> str:
    """In words."""
    if found == expected:
        return f"all {len(expected)} files the same bytes"
    different = [name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name)]
    return f"{len(different)} of {len(expected)} files DIFFER: {sorted(different)[:5]}"


if __name__ == "__main__":
    main()
