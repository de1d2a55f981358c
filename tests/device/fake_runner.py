"""Stands in for onnxruntime_perf_test, on the CPU provider; $FAKE_RUNNER says what else it does.

It takes the same options, feeds the same files, writes the same rows, and refuses what the original refuses.
"""

import getopt
import os
import random
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper

MODE = os.environ.get("FAKE_RUNNER", "")


def main(arguments: list[str]) -> int:
    given, (model, rows) = getopt.gnu_getopt(arguments, "e:m:r:x:y:Di:C:f:")
    flags = dict(given)
    if MODE == "fail":
        print("Run failed: out of tiny memory")
        return 255
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = int(flags["-x"])
    for letter, value in given:
        if letter == "-f":
            name, _, size = value.rpartition(":")
            options.add_free_dimension_override_by_name(name, int(size))
    for entry in flags.get("-C", "").split():
        options.add_session_config_entry(*entry.split("|"))
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    folders = [folder for folder in Path(model).parent.iterdir() if folder.is_dir()]
    feeds = {folder.name: read(folder, session) for folder in folders}
    assert flags["-m"] == "times"
    runs = int(flags["-r"]) - (MODE == "short")
    with open(rows, "a") as file:
        for run in range(-1, runs):
            start = time.perf_counter()
            session.run(None, feeds[random.choice(folders).name])
            if run >= 0:
                file.write(f"bundle,{time.perf_counter() - start:g},123456789,50,{run}\n")
        if MODE == "garbage":
            file.write("\nMin Latency: 0.1 s\n")
    if MODE in ("outputs", "some", "nan"):
        for name in feeds:
            write(Path("outputs", name), session.run(None, feeds[name]))
    return 0


def read(folder: Path, session: ort.InferenceSession) -> dict[str, np.ndarray]:
    tensors = [onnx.TensorProto.FromString(file.read_bytes()) for file in folder.glob("input_*.pb")]
    assert {tensor.name for tensor in tensors} == {value.name for value in session.get_inputs()}
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in tensors}


def write(folder: Path, outputs: list[np.ndarray]) -> None:
    if MODE == "some" and folder.name == "test_data_set_2":
        return
    folder.mkdir(parents=True)
    for index, values in enumerate(outputs):
        broken = MODE == "nan" and folder.name == "test_data_set_1"
        tensor = numpy_helper.from_array(np.full_like(values, np.nan) if broken else values)
        (folder / f"output_{index}.pb").write_bytes(tensor.SerializeToString())


try:
    sys.exit(main(sys.argv[1:]))
except Exception as error:  # as main.cc does
    print(error, file=sys.stderr)
    sys.exit(255)
