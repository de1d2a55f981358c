"""`--target auto`: make a model roughly for every target that executes here, time them in turns, and take the fastest.

What is timed is made on a few calibration rows, without smoothing and without a search for ranges: the operators that
run are those of the whole job, and so is their speed; only accuracy would differ.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from onnxslim_bert.calibration.loading import is_named
from onnxslim_bert.calibration.working import Working
from onnxslim_bert.errors import PassError, ProviderError
from onnxslim_bert.graph.claims import scratch
from onnxslim_bert.job.data import Sources
from onnxslim_bert.job.deployment import Deployment
from onnxslim_bert.job.job import Job
from onnxslim_bert.job.main_recipe import CALIBRATED, Quantization, check_calibration, main_recipe
from onnxslim_bert.job.rows import canonical_form, fitting_length, fixed_shape
from onnxslim_bert.job.run import run
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.proof.bench import Latency, Rounds, bench
from onnxslim_bert.recipes.lowering import LOWERINGS, mode_for
from onnxslim_bert.targets.table import CPU, TARGETS

FEW_ROWS, BATCH, LENGTH = 16, 1, 128
ROUNDS = Rounds(timed=15, warmup=3)


@dataclass(frozen=True)
class ChosenTarget:
    """The target to take, and why, in one line."""

    target: str
    why: str


def fastest_target(source: Path, data: Sources, what: Quantization, working: Working) -> ChosenTarget:
    """The target on which an ONNX file, made into what `what` asks for, is fastest on this machine.

    Another target than the CPU is taken only when it is faster for certain: the CPU's files run everywhere. Emulated
    targets, and those that take fixed shapes only, are left out. Raises what a job for the CPU raises.
    """
    with scratch() as folder:
        made: dict[str, Path] = {}
        left: list[str] = []
        for name in _candidates(left):
            try:
                made[name] = _roughly(source, folder / f"{name}.onnx", name, data, what, working)
            except (PassError, ProviderError) as error:
                if name == CPU.name:
                    raise
                left.append(f"{name}: {error}")
        if len(made) == 1:
            return ChosenTarget(CPU.name, f"target cpu, the only one that can be had here ({'; '.join(left)})")
        entries = [(source, CPU), *((path, TARGETS[name]) for name, path in made.items())]
        model = Model.load(source)
        length = fitting_length(canonical_form(model), min(LENGTH, working.max_length))
        batch = fixed_shape(model)[0] or BATCH
        timed = bench(entries, working, batch_sizes=[batch], lengths=[length], rounds=ROUNDS, footprints=False)
    return chosen(dict(zip(made, timed.latencies[1:], strict=True)))


def chosen(latencies: dict[str, Latency]) -> ChosenTarget:
    """The target of the shortest latency, if its speed-up over the source surely exceeds that of the CPU; else the CPU.

    latencies: by target, each with its speed-up over the same source in the same rounds.
    """
    cpu = latencies[CPU.name].speedup
    others = {name: latency.speedup for name, latency in latencies.items() if name != CPU.name}
    best = max(others, key=lambda name: others[name].value)
    surely = others[best].low > max(cpu.value, cpu.high)
    spread = {
        name: f"{each.speedup.value:.2f}x ({each.speedup.low:.2f} to {each.speedup.high:.2f})"
        for name, each in latencies.items()
    }
    timed = ", ".join(f"{name} {text}" for name, text in spread.items())
    reason = "the fastest" if surely else "as no other is surely faster, and its files run everywhere"
    sample = next(iter(latencies.values()))
    rounds = f"over the source, {ROUNDS.timed} interleaved rounds, {sample.length} tokens"
    target = best if surely else CPU.name
    return ChosenTarget(target, f"target {target}, {reason}: {timed} {rounds}")


def data_for(data: Sources, what: Quantization, target: str) -> Sources:
    """The data of a job for a target that `fastest_target` chose: without calibration texts where it reads none."""
    if data.calibration is None or mode_for(target, what.mode) in CALIBRATED:
        return data
    spec = data.calibration if is_named(data.calibration) else None
    return replace(data, calibration=None, evaluation=data.evaluation or spec, rows=None)


def _candidates(left: list[str]) -> Sequence[str]:
    """The targets to try; why others are not goes to `left`."""
    found = [CPU.name]
    for name, target in TARGETS.items():
        if name == CPU.name or target.emulated or LOWERINGS[name].is_fixed:
            continue
        if reason := target.absent():
            left.append(f"{name}: {reason}")
        else:
            found.append(name)
    return found


def _roughly(source: Path, output: Path, target: str, data: Sources, what: Quantization, working: Working) -> Path:
    """Write the model for a target, quickly."""
    mode, where = mode_for(target, what.mode), Deployment(target)
    quick = replace(what, mode="static", method="minmax", smooth=False) if mode in CALIBRATED else what
    rows = data_for(replace(data, evaluation=None, own_split=False, rows=FEW_ROWS, label_column=None), what, target)
    check_calibration(what, where, given=rows.calibration is not None)
    if rows.calibration is None:
        rows = Sources()
    run(Job(source, output, main_recipe(quick, where), rows, where, working, report=False, timing=False))
    return output
