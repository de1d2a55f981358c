"""No command opens what a model or a link says lies outside its folder, not to hash it, and not to tell its size."""

import onnx
import pytest
from command_line import run_python, workspace

SIZE = 54_321
LOOKS = """
import contextlib, io, sys
from onnxslim_bert.cli import main

seen = []
def look(event, given):
    if event in ("open", "os.listdir", "shutil.copyfile") and str(given[0]).endswith(("secret.bin", "link.bin")):
        seen.append(f"{event} {given[0]}")

sys.addaudithook(look)
for command in sys.argv[1].split(";"):
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            main(command.split())
            code = 0
        except SystemExit as end:
            code = end.code
    print(code, seen, "54321" in said.getvalue(), "outside the model's folder" in said.getvalue(), command, sep=" | ")
"""
COMMANDS = (
    "inspect evil.onnx --json --sha256",
    "verify made.onnx --base evil.onnx",
    "verify evil.onnx --base model.onnx",
    "validate model.onnx evil.onnx --data eval.tsv",
    "bench evil.onnx",
    "quantize evil.onnx --mode dynamic -o o.onnx",
    "slim evil.onnx -p canonicalize? -o o.onnx",
    "explain evil.onnx --target cpu",
    "mobile evil.onnx -o mobile",
    "split evil.onnx -o two",
    "device bundle evil.onnx --target cpu --data eval.tsv -o bundle",
    "zoo run zoo.toml -o out --jobs 1",
)


@pytest.mark.parametrize("place", ["../secret.bin", "absolute", "link.bin", "deep/../../secret.bin"])
def test_what_lies_outside_a_models_folder_is_not_opened(tmp_path, monkeypatch, place):
    folder = tmp_path / "work"
    folder.mkdir()
    model = workspace(folder)
    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes(SIZE))
    (folder / "link.bin").symlink_to(secret)
    (folder / "zoo.toml").write_text('[recipes.a]\nmode = "dynamic"\n[[models]]\npath = "evil.onnx"\n')
    evil = onnx.load(model)
    weight = max(evil.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    entries = {"location": str(secret) if place == "absolute" else place, "length": str(len(weight.raw_data))}
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    for key, value in entries.items():
        weight.external_data.add(key=key, value=value)
    onnx.save(evil, folder / "evil.onnx")
    monkeypatch.chdir(folder)
    made = "quantize model.onnx --mode dynamic --data eval.tsv -o made.onnx"
    first, *others = run_python(LOOKS, ";".join((made, *COMMANDS))).splitlines()
    assert first.startswith("0 | []"), first
    assert [line for line in others if not line.startswith("2 | [] | False | True | ")] == []
    assert len(others) == len(COMMANDS)
