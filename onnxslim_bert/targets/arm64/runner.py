"""Run inside the emulator: one model, whose answers to batches go back through pipes.

Reads arrays from stdin and writes answers to stdout, each in a frame: a letter, 8 bytes of length, the content. The
first frame describes the session. Each run of the model lies between two calls of getpgid, where an emulator that
counts instructions notes how many it has executed (counter.c). Knows numpy and onnxruntime alone, which are what is
installed there.
"""

import io
import json
import os
import sys
from typing import Any

import numpy as np
import onnxruntime as ort

DESCRIBED, ARRAYS, FAILED = b"d", b"a", b"f"


def main(path: str, threads: int) -> None:
    """Open the model, then answer until stdin ends."""
    pipe = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what native code prints is no answer

    def send(kind: bytes, content: bytes | memoryview) -> None:
        pipe.write(kind + len(content).to_bytes(8, "little"))
        pipe.write(content)
        pipe.flush()

    try:
        session = opened(path, threads)
    except Exception as error:
        send(FAILED, str(error).encode())
        return
    send(DESCRIBED, json.dumps(described(session)).encode())
    names = [taken.name for taken in session.get_inputs()]
    while head := sys.stdin.buffer.read(8):
        arrays = np.load(io.BytesIO(sys.stdin.buffer.read(int.from_bytes(head, "little"))))
        feeds = {name: arrays[f"arr_{place}"] for place, name in enumerate(names)}
        try:
            os.getpgid(0)
            outputs = session.run(None, feeds)
            os.getpgid(0)
        except Exception as error:
            send(FAILED, str(error).encode())
            continue
        content = io.BytesIO()
        np.savez(content, *(np.asarray(values) for values in outputs))
        send(ARRAYS, content.getbuffer())


def opened(path: str, threads: int) -> ort.InferenceSession:
    """A session with the settings of `graph.sessions`, and the record of who took which node."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def described(session: ort.InferenceSession) -> dict[str, list[list[Any]]]:
    """Inputs and outputs (name, type, shape) and nodes (provider, name, operator)."""
    ends = {"inputs": session.get_inputs(), "outputs": session.get_outputs()}
    pieces = session.get_provider_graph_assignment_info()
    nodes = [[piece.ep_name, node.name, node.op_type] for piece in pieces for node in piece.get_nodes()]
    return {key: [[one.name, one.type, one.shape] for one in found] for key, found in ends.items()} | {"nodes": nodes}


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
