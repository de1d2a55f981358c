"""Where the time of a model goes: milliseconds and share of each operator, from ONNX Runtime's profiler.

    python tools/profile_model.py model.onnx model.int8.onnx --seq 128

One thread, batch 1 unless asked otherwise, every token real. Dense layers are listed with their shape and their rate in
GOPS (multiply and add as two).
"""

import argparse
import json
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from onnxslim_bert.graph.sessions import CPU, session_options
from onnxslim_bert.graph.signature import input_dtypes

DENSE = ("MatMul", "Gemm", "FusedGemm", "FusedMatMul", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QAttention")
CONTAINERS = ("If",)  # their time is that of the nodes inside


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--seq", type=int, default=128)
    parser.add_argument("--runs", type=int, default=30)
    options = parser.parse_args()
    for path in options.models:
        rows = by_operator(profile(path, options.batch, options.seq, options.runs))
        total = sum(row[1] for row in rows)
        print(
            f"\n{path.name}, batch {options.batch}, {options.seq} tokens: {total / options.runs:.2f} ms in operators\n"
        )
        print("| operator | calls | ms | share | GOPS |\n| --- | --: | --: | --: | --: |")
        for name, time, calls, work in rows[:16]:
            rate = f"{work / time / 1e6:.0f}" if work else ""
            print(f"| {name} | {calls // options.runs} | {time / options.runs:.2f} | {time / total:.1%} | {rate} |")


def profile(path: Path, batch: int, seq: int, runs: int) -> list[dict[str, Any]]:
    """The profiler's events of `runs` runs."""
    with tempfile.TemporaryDirectory() as folder:
        options = session_options()
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = ort.InferenceSession(str(path), options, providers=CPU)
        words = np.arange(batch * seq).reshape(batch, seq) % 90 + 5
        inputs = input_dtypes(session).items()
        feeds = {n: (words if i == 0 else np.ones_like(words)).astype(dtype) for i, (n, dtype) in enumerate(inputs)}
        for _ in range(runs):
            session.run(None, feeds)
        events: list[dict[str, Any]] = json.loads(Path(session.end_profiling()).read_text())
    return [e for e in events if e.get("cat") == "Node" and e["name"].endswith("kernel_time")]


def by_operator(events: Sequence[dict[str, Any]]) -> list[tuple[str, float, int, float]]:
    """(operator and shape, milliseconds, calls, operations) over all events, longest first."""
    spent: dict[str, float] = defaultdict(float)
    calls: dict[str, int] = defaultdict(int)
    work: dict[str, float] = defaultdict(float)
    for event in events:
        operator = event["args"]["op_name"]
        if operator in CONTAINERS:
            continue
        name = operator
        if operator in DENSE:
            read, written = (
                next(iter(event["args"][key][0].values())) for key in ("input_type_shape", "output_type_shape")
            )
            if len(read) == len(written) <= 3:  # not attention's products, of rank 4
                name = f"{operator} {int(np.prod(read[:-1]))} x {read[-1]} x {written[-1]}"
                work[name] += 2.0 * float(np.prod(read)) * written[-1]
        spent[name] += event["dur"] / 1e3
        calls[name] += 1
    return sorted(((name, spent[name], calls[name], work[name]) for name in spent), key=lambda row: -row[1])


if __name__ == "__main__":
    main()
