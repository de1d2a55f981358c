"""Android devices and boards by adb, Android's debug bridge.

Exit codes of what runs on the device come back from Android 7 on.
https://developer.android.com/tools/adb
"""

import contextlib
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from onnxslim_bert.errors import DataError, ProviderError

SCRATCH = "/data/local/tmp"  # where adb's user may write and run programs
COPY_S, SHELL_S = 600, 30  # seconds granted to a copy and to a small command


class DeviceError(ProviderError):
    """A device is missing, or fails to run a bundle."""


@dataclass(frozen=True)
class Adb:
    """One connected device."""

    program: str
    serial: str

    def shell(self, command: str, timeout: float = SHELL_S) -> str:
        """What `command` prints on the device. Raises DeviceError when it fails or takes more than `timeout` s."""
        return self._run(["shell", command], timeout)

    def push(self, *source: Path, to: str) -> None:
        """Copy files or a folder to the device."""
        self._run(["push", *map(str, source), to], COPY_S)

    def pull(self, source: str, to: Path) -> None:
        """Copy a file or a folder from the device."""
        self._run(["pull", source, str(to)], COPY_S)

    def described(self) -> str:
        """Model, chip and Android version, as far as the device tells."""
        told = self.shell("getprop ro.product.model; getprop ro.soc.model; getprop ro.build.version.release; true")
        name, chip, release = [*told.split("\n"), "", "", ""][:3]
        parts = [name.strip(), chip.strip(), release.strip() and f"Android {release.strip()}"]
        return ", ".join(part for part in parts if part) or "unknown"

    @contextlib.contextmanager
    def folder(self) -> Iterator[str]:
        """A folder on the device, gone in the end with the process whose id is in its file `pid`."""
        path = f"{SCRATCH}/onnxslim-{secrets.token_hex(4)}"
        remove = f"[ -f {path}/pid ] && kill -9 $(cat {path}/pid); rm -rf {path}"
        try:
            self.shell(f"mkdir -p {path}")
            yield path
        except BaseException:
            with contextlib.suppress(DeviceError):
                self.shell(remove)
            raise
        try:
            self.shell(remove)
        except DeviceError as error:
            raise DeviceError(f"{path} may still be on the device: {error}") from error

    def _run(self, arguments: list[str], timeout: float) -> str:
        try:
            return _call([self.program, "-s", self.serial, *arguments], timeout)
        except subprocess.TimeoutExpired as error:
            raise DeviceError(f"adb {arguments[0]} on {self.serial} took more than {timeout:g} s") from error
        except subprocess.CalledProcessError as error:
            raise DeviceError(f"adb {arguments[0]} on {self.serial} failed: {_said(error)}") from error


def connect(serial: str | None = None) -> Adb:
    """The device with this serial number, else with $ANDROID_SERIAL, else the only one.

    Raises DeviceError without adb or without such a device ready, DataError when there are several to choose from.
    """
    program = shutil.which("adb")
    if program is None:
        raise DeviceError("no adb on PATH: install Android's platform-tools")
    try:
        listing = _call([program, "devices"], SHELL_S)
    except subprocess.TimeoutExpired as error:
        raise DeviceError(f"adb devices took more than {SHELL_S} s") from error
    except subprocess.CalledProcessError as error:
        raise DeviceError(f"adb devices failed: {_said(error)}") from error
    states = dict(line.split("\t", 1) for line in listing.splitlines() if "\t" in line)
    wanted = serial or os.environ.get("ANDROID_SERIAL")
    found = ", ".join(f"{name} ({state})" for name, state in states.items()) or "none"
    ready = [name for name, state in states.items() if state == "device" and wanted in (None, "", name)]
    if not ready:
        raise DeviceError(f"adb finds {found}: needed {wanted or 'a device'} connected and authorized")
    if len(ready) > 1:
        raise DataError(f"adb finds {found}: needed --adb SERIAL to choose one")
    return Adb(program, ready[0])


def _call(command: list[str], timeout: float) -> str:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=timeout, check=True
    )
    return done.stdout


def _said(error: subprocess.CalledProcessError) -> str:
    """The last line with "error" or "fail" in it that a failed command printed, or its last line; and the exit code."""
    lines = [line for line in f"{error.stdout}\n{error.stderr}".splitlines() if line.strip()] or ["it said nothing"]
    complaints = [line for line in lines if "error" in line.lower() or "fail" in line.lower()]
    return f"{' '.join((complaints or lines)[-1].split())[:300]} (exit code {error.returncode})"
