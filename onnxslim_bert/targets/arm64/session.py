"""A session in the emulator, with the methods of an ONNX Runtime session that this project calls."""

import io
import json
import subprocess
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.errors import ModelError, ProviderError
from onnxslim_bert.graph.native_path import check_utf8
from onnxslim_bert.graph.runtime_words import in_words
from onnxslim_bert.targets.arm64.runner import ARRAYS, DESCRIBED, FAILED

RUNNER = Path(__file__).with_name("runner.py")


class End(NamedTuple):
    """An input or output: as onnxruntime.NodeArg."""

    name: str
    type: str
    shape: list[int | str | None]


class Node(NamedTuple):
    """A node of the optimized graph."""

    name: str
    op_type: str


class Piece(NamedTuple):
    """What one provider took, as ONNX Runtime records it."""

    ep_name: str
    nodes: list[Node]

    def get_nodes(self) -> list[Node]:
        """Its nodes."""
        return self.nodes


class EmulatedSession:
    """The model at `path`, opened by a process. start: the words that a Python program is started with.

    Raises ModelError when ONNX Runtime refuses the model there, ProviderError when the process ends.
    """

    def __init__(self, path: Path, start: Sequence[str], threads: int = 1) -> None:
        check_utf8(path, "the emulator", ModelError)
        self._said = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [*start, str(RUNNER), str(path), str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
        )
        weakref.finalize(self, self._process.kill)
        kind, content = self._reply()
        if kind != DESCRIBED:
            raise ModelError(f"{path}: ONNX Runtime cannot load it on 64-bit ARM ({in_words(content.decode())})")
        found = json.loads(content)
        self._inputs, self._outputs = ([End(*one) for one in found[key]] for key in ("inputs", "outputs"))
        self._pieces = [Piece(provider, [Node(name, op)]) for provider, name, op in found["nodes"]]

    def get_inputs(self) -> list[End]:
        """The inputs, in the graph's order."""
        return self._inputs

    def get_outputs(self) -> list[End]:
        """The outputs, in the graph's order."""
        return self._outputs

    def get_provider_graph_assignment_info(self) -> list[Piece]:
        """Which provider took which nodes."""
        return self._pieces

    def run(self, output_names: None, feeds: Mapping[str, Array], run_options: None = None) -> list[Array]:
        """Every output for one batch. Raises ModelError when the model does not run on it."""
        packed = io.BytesIO()
        np.savez(packed, *(feeds[taken.name] for taken in self._inputs))
        content = packed.getbuffer()
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(len(content).to_bytes(8, "little"))
            self._process.stdin.write(content)
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None
        kind, reply = self._reply()
        if kind != ARRAYS:
            raise ModelError(in_words(reply.decode()))
        arrays = np.load(io.BytesIO(reply))
        return [arrays[f"arr_{place}"] for place in range(len(self._outputs))]

    def _reply(self) -> tuple[bytes, bytes]:
        assert self._process.stdout is not None
        kind, size = self._process.stdout.read(1), self._process.stdout.read(8)
        content = self._process.stdout.read(int.from_bytes(size, "little"))
        if kind not in (DESCRIBED, ARRAYS, FAILED) or len(content) < int.from_bytes(size, "little"):
            raise self._ended()
        return kind, content

    def _ended(self) -> ProviderError:
        code = self._process.wait()
        self._said.seek(0)
        said = self._said.read().decode(errors="replace").strip().splitlines() or ["it said nothing"]
        return ProviderError(f"the emulator of 64-bit ARM ended with {code} ({said[-1]})")
