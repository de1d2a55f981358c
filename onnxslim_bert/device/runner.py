"""The program that runs a bundle on a device: what it is given, and what it leaves behind.

A runner is started in an empty folder that holds the bundle in `bundle/` and a folder `outputs/`, with the arguments of
onnxruntime_perf_test, which is one:

    -e TARGET -m times -r RUNS -x THREADS -y 1 -D [-i 'KEY|VALUE ...'] [-C 'KEY|VALUE ...'] [-f NAME:SIZE]...
    bundle/model.onnx latencies.csv

It feeds test sets, the folders beside the model, drawn at random: once untimed, then RUNS times. RUNS counts the
manifest's warm-up too, whose rows are dropped here. It writes latencies.csv, a row `model,seconds,peak bytes,CPU %,run`
for each run, and ends with 0. A runner that can also writes outputs/test_data_set_k/output_i.pb, a TensorProto for each
output that the manifest names. onnxruntime_perf_test cannot, so what it computed stays unproven. An app that has no
command line writes results.json itself (manifest.py says what is in it).

https://github.com/microsoft/onnxruntime/tree/main/onnxruntime/test/perftest: command_args_parser.cc for the options,
performance_runner.cc for the rows, ort_test_session.cc for the draw; test/onnx/TestCase.cc for the test sets.
"""

import math
from collections.abc import Mapping

from onnxslim_bert.device.manifest import MODEL, Manifest
from onnxslim_bert.errors import DataError

LATENCIES, OUTPUTS = "latencies.csv", "outputs"
NO_FALLBACK = "session.disable_cpu_ep_fallback"


# options that are always set: the default of CoreML, NeuralNetwork, is for older systems
OPTIONS: Mapping[str, Mapping[str, str]] = {"coreml": {"ModelFormat": "MLProgram"}}


def arguments(manifest: Manifest) -> list[str]:
    """The arguments of onnxruntime_perf_test for a bundle in the folder `bundle`."""
    plan = manifest.plan
    session = {} if plan.fallback or plan.target == "cpu" else {NO_FALLBACK: "1"}
    given = [
        *("-e", plan.target, "-m", "times", "-r", str(plan.warmup + plan.runs)),
        *("-x", str(plan.threads), "-y", "1", "-D"),
    ]
    for letter, entries in (("-i", plan.options), ("-C", session)):
        if entries:
            given += [letter, " ".join(f"{key}|{value}" if value else key for key, value in entries.items())]
    for name, size in manifest.dimensions.items():
        given += ["-f", f"{name}:{size}"]
    return [*given, f"bundle/{MODEL}", LATENCIES]


def read_latencies(text: str, manifest: Manifest) -> tuple[tuple[float, ...], int]:
    """(milliseconds of every timed run, most resident bytes) in latencies.csv.

    Raises DataError when a row is no measurement or runs are missing.
    """
    plan = manifest.plan
    seconds, peak = [], 0
    for line in text.splitlines():
        row = line.split(",")
        try:
            seconds.append(float(row[1]))
            peak = max(peak, int(row[2]))
        except (IndexError, ValueError) as error:
            raise DataError(f"{LATENCIES}: {line[:60]!r} is no row of onnxruntime_perf_test") from error
        if not (math.isfinite(seconds[-1]) and seconds[-1] > 0):
            raise DataError(f"{LATENCIES}: run {len(seconds)} took {row[1]} s: needed a positive time")
    if len(seconds) != plan.warmup + plan.runs:
        raise DataError(f"{LATENCIES} holds {len(seconds)} runs: needed {plan.warmup} + {plan.runs}")
    return tuple(1000 * value for value in seconds[plan.warmup :]), peak
