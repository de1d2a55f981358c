"""Run a bundle on a connected device and bring its answers home."""

import base64
import hashlib
import shlex
from collections.abc import Sequence
from pathlib import Path

from onnxslim_bert import __version__
from onnxslim_bert.device.adb import Adb, DeviceError
from onnxslim_bert.device.bundle import Bundle, sha256_of
from onnxslim_bert.device.manifest import Output, Results
from onnxslim_bert.device.runner import LATENCIES, OUTPUTS, arguments, read_latencies
from onnxslim_bert.errors import DataError
from onnxslim_bert.graph.claims import scratch


def run_on_device(
    bundle: Bundle, adb: Adb, runner: Path, *, libraries: Sequence[Path] = (), timeout: float = 600
) -> Results:
    """Push the bundle and the runner, run it, pull what it wrote; nothing stays on the device.

    libraries: shared libraries that the runner loads, laid beside it. timeout: seconds granted to the runner.
    Raises DeviceError when the device or the runner fails, or the runner leaves less than `runner` says.
    """
    if bundle.manifest.plan.target == "coreml":
        raise DataError("coreml runs on Apple's devices, which adb does not reach: run the bundle there and import")
    with adb.folder() as folder, scratch() as home:
        adb.shell(f"mkdir {folder}/{OUTPUTS}")
        adb.push(bundle.folder, to=f"{folder}/bundle")
        adb.push(runner, to=f"{folder}/runner")
        if libraries:
            adb.push(*libraries, to=folder)
        command = shlex.join(["./runner", *arguments(bundle.manifest)])
        paths = "LD_LIBRARY_PATH=. ADSP_LIBRARY_PATH=."
        # the file `pid` is there to end the runner when this side gives up; `wait` returns the runner's exit code
        started = f"cd {folder} && chmod 755 runner || exit; {paths} {command} & echo $! >pid"
        adb.shell(f"{started}; wait $!; code=$?; rm -f pid; exit $code", timeout)
        adb.pull(f"{folder}/{LATENCIES}", Path(home, LATENCIES))
        adb.pull(f"{folder}/{OUTPUTS}", Path(home))
        device = adb.described()
        try:
            latencies, peak = read_latencies(Path(home, LATENCIES).read_text(errors="replace"), bundle.manifest)
            outputs = read_outputs(Path(home, OUTPUTS), bundle)
        except DataError as error:
            raise DeviceError(f"the runner on {adb.serial} left less than it should: {error}") from error
    return Results(
        schema=Results.SCHEMA,
        tool=f"onnxslim-bert {__version__}",
        bundle=bundle.sha256,
        device=device,
        runner=f"{runner.name} {sha256_of(runner)[:12]}",
        latencies_ms=latencies,
        peak_bytes=peak or None,
        outputs=outputs,
    )


def read_outputs(folder: Path, bundle: Bundle) -> dict[str, Output] | None:
    """The outputs that a runner wrote; None when it wrote none. Raises DataError when only some are there."""
    names = bundle.manifest.output_files()
    missing = [name for name in names if not (folder / name).is_file()]
    if len(missing) == len(names):
        return None
    if missing:
        raise DataError(f"{len(missing)} of {len(names)} outputs are missing, {missing[0]} first")
    found = {name: (folder / name).read_bytes() for name in names}
    return {
        name: Output(hashlib.sha256(data).hexdigest(), base64.b64encode(data).decode()) for name, data in found.items()
    }
