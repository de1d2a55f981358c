"""Stands in for adb: one device that is the folder $FAKE_DEVICE, failing as $FAKE_ADB says."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

SCRATCH = "/data/local/tmp"
FAILURE = os.environ.get("FAKE_ADB", "")
LISTED = {
    "none": "",
    "unauthorized": "A1\tunauthorized\n",
    "two": "A1\tdevice\nB2\tdevice\n",
}
KNOWN = "ro.product.model) echo Phone 9;; ro.build.version.release) echo 15;; *) echo;;"
GETPROP = f"getprop() {{ case $1 in {KNOWN} esac; }}; "


def main(arguments: list[str]) -> int:
    if arguments == ["devices"]:
        if FAILURE == "no server":
            return complain("* failed to start daemon")
        print("List of devices attached", LISTED.get(FAILURE, "A1\tdevice\n"), sep="\n")
        return 0
    flag, _, verb, *rest = arguments
    assert flag == "-s"
    return {"shell": shell, "push": push, "pull": pull}[verb](*rest)


def shell(command: str) -> int:
    if "./runner" in command and FAILURE == "interrupt":
        os.kill(os.getppid(), signal.SIGINT)
        time.sleep(30)
    if "rm -rf" in command and FAILURE == "unplugged":
        return complain("adb: device 'A1' not found")
    return subprocess.call(["/bin/sh", "-c", GETPROP + command.replace(SCRATCH, os.environ["FAKE_DEVICE"])])


def push(*arguments: str) -> int:
    *sources, to = arguments
    for source in sources:
        copy(Path(source), on_device(to))
    if FAILURE == "full":
        return complain("adb: error: failed to copy 'model.onnx': remote write failed: No space left on device")
    return 0


def pull(source: str, to: str) -> int:
    if not on_device(source).exists():
        return complain(f"adb: error: failed to stat remote object '{source}': No such file or directory")
    copy(on_device(source), Path(to))
    return 0


def copy(source: Path, to: Path) -> None:
    target = to / source.name if to.is_dir() else to
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)


def on_device(path: str) -> Path:
    assert path.startswith(SCRATCH)
    return Path(path.replace(SCRATCH, os.environ["FAKE_DEVICE"]))


def complain(message: str) -> int:
    print(message, file=sys.stderr)
    return 1


sys.exit(main(sys.argv[1:]))
