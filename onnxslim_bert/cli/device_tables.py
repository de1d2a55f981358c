"""How runs on devices are shown: `bench`'s latencies, then how close the outputs are."""

from collections.abc import Sequence
from dataclasses import asdict

from onnxslim_bert import __version__
from onnxslim_bert.cli.screen import console, echo, echo_json, plain_table
from onnxslim_bert.device.answers import DeviceRun
from onnxslim_bert.errors import AccuracyGateError
from onnxslim_bert.wording import plural


def report(runs: Sequence[DeviceRun], as_json: bool = False) -> None:
    """Print the runs. Raises AccuracyGateError when a device answered NaN or infinity."""
    if as_json:
        document = {"onnxslim_bert": __version__, "latencies": [asdict(run) for run in runs]}
        echo_json(document)
    else:
        show(runs)
    broken = next((run for run in runs if run.broken), None)
    if broken:
        rows = f"{broken.broken} of {plural(broken.rows, 'row')}"
        raise AccuracyGateError(f"{broken.device}: {broken.output} is NaN or infinite on {rows}: needed finite outputs")


def show(runs: Sequence[DeviceRun]) -> None:
    """Print the latencies, then what each device's outputs are worth."""
    times = plain_table("model", "target", "device", "batch", "tokens", "median ms", "p90", "p99")
    close = plain_table("device", "agreement %", "mean |difference|", "largest", "cosine")
    for run in runs:
        tokens = "text" if run.length is None else str(run.length)
        milliseconds = f"{run.median_ms:.2f}", f"{run.p90_ms:.2f}", f"{run.p99_ms:.2f}"
        times.add_row(run.model, run.target, run.device, str(run.batch), tokens, *milliseconds)
        if run.fidelity:
            seen = run.fidelity
            share = seen.agreement
            agreement = f"{share.value:.2f} ({share.low:.1f} to {share.high:.1f})" if share else "-"
            cosine = f"{seen.cosine:.6f}" if seen.cosine is not None else "-"
            close.add_row(run.device, agreement, f"{seen.mean_difference:.4g}", f"{seen.max_difference:.4g}", cosine)
    screen = console()
    screen.print(times)
    if close.row_count:
        screen.print("", close, sep="\n")
    for run in runs:
        memory = f", peak memory {run.peak_bytes / 1e6:.0f} MB" if run.peak_bytes else ""
        timed = f"{run.runs} runs after {run.warmup} of warm-up, {plural(run.threads, 'thread')}{memory}; {run.runner}"
        echo(f"{run.device}: {timed}; expected from {run.base} on the CPU, {plural(run.rows, 'row')} of {run.data}")
        for gap in run.unproven:
            echo(f"{run.device}: not proven: {gap}")
