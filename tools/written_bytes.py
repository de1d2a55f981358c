"""Hash what a fixed set of jobs writes, to see that a change of the code changes no written model.

    python tools/written_bytes.py exports/*/model.onnx --calib sst2 -o before.json
    python tools/written_bytes.py exports/*/model.onnx --calib sst2 --like before.json

Every model goes through the modes of the CPU and the exact passes; the first through the targets, three recipes of
structure passes and a recipe as a search prints it; the first two through a zoo of six jobs. What names software (the
metadata) is left out of the hash. Ends with 1 when a job differs from that of the same name in the record.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx

MODES = {
    "static": ["quantize"],
    "static best": ["quantize", "--method", "mse"],
    "dynamic": ["quantize", "--mode", "dynamic"],
    "qdq": ["quantize", "--format", "qdq"],
    "fp16": ["quantize", "--mode", "fp16"],
    "exact": ["slim", "-p", "canonicalize?,fuse,first-token?,skip-mask?,unpad?"],
}
TARGETS = {
    "openvino": ["quantize", "--target", "openvino"],
    "openvino static": ["quantize", "--target", "openvino", "--mode", "static"],
    "qnn": ["quantize", "--target", "qnn", "--seq", "32"],
    "qnn lengths": ["quantize", "--target", "qnn", "--seq", "16,32"],
    "coreml": ["quantize", "--target", "coreml", "--seq", "32"],
    "nnapi": ["quantize", "--target", "nnapi", "--seq", "32"],
    "batch": ["quantize", "--batch"],
    "weight-only": ["quantize", "--mode", "weight-only"],
}
RECIPES = {
    "neurons": "canonicalize?,fuse?,prune-ffn{keep=0.6},first-token?,split-outliers?,smooth?,quantize-static",
    "layers": "canonicalize?,fuse?,drop-layers{layers=4},prune-heads{keep=0.75},low-rank{keep=0.8}?",
    "sharing": "canonicalize?,fuse?,share-weights{groups=3},factorize-embedding{rank=128},quantize-dynamic",
    "searched": "canonicalize?,fuse?,trim-vocabulary{tokens=15261},"
    "prune{heads=6/8/9/10/7/8,neurons=512/640/704/768/512/512}?,first-token?,split-outliers?,smooth?,quantize-static{method=mse,float-layers=1},skip-mask?",
}
ZOO = """
[defaults]
calib = {calib}
rows = {rows}
[recipes]
int8 = {{}}
dynamic = {{ mode = "dynamic" }}
neurons = {{ passes = "canonicalize?,fuse,first-token?,prune-ffn{{keep=0.75}},quantize-static" }}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--calib", default="sst2")
    parser.add_argument("--rows", type=int, default=64, help="calibration rows")
    parser.add_argument("--like", type=Path, help="a record to compare with")
    parser.add_argument("-o", "--output", type=Path, help="where the record goes")
    given = parser.parse_args()
    record: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, found in jobs([path.resolve() for path in given.models], given.calib, given.rows, Path(scratch)):
            record[name] = found
            print(f"{found[:16]}  {name}", flush=True)
    if given.output:
        given.output.write_text(json.dumps(record, indent=1) + "\n")
    if given.like:
        before = json.loads(given.like.read_text())
        other = [name for name in before | record if before.get(name) != record.get(name)]
        print(f"{len(record)} jobs, {len(other)} differ" + "".join(f"\n  {name}" for name in other))
        sys.exit(bool(other))


def jobs(models: Sequence[Path], calib: str, rows: int, scratch: Path) -> Iterator[tuple[str, str]]:
    """Name and hash of every job."""
    sampled = ["--calib", calib, "--rows", str(rows)]
    for model in models:
        for name, command in MODES.items():
            reads = "static" in name or name == "qdq"
            yield f"{model.parent.name} {name}", written(model, command, sampled if reads else [], scratch)
    first = models[0]
    for name, command in TARGETS.items():
        reads = name in ("openvino static", "qnn", "qnn lengths", "batch")
        yield f"{first.parent.name} {name}", written(first, command, sampled if reads else [], scratch)
    for name, recipe in RECIPES.items():
        yield f"{first.parent.name} {name}", written(first, ["slim", "-p", recipe], sampled, scratch)
    yield from zoo(models[:2], calib, rows, scratch)


def written(model: Path, command: Sequence[str], data: Sequence[str], scratch: Path) -> str:
    """The hash of what one command writes; what it says, where it writes nothing."""
    output = scratch / ("out" if "16,32" in command else "out.onnx")
    done = run(command[0], str(model), *command[1:], *data, "-o", str(output), "--force")
    return content(output) if done.returncode == 0 else f"{done.returncode}: {done.stderr.strip().splitlines()[-1]}"


def zoo(models: Sequence[Path], calib: str, rows: int, scratch: Path) -> Iterator[tuple[str, str]]:
    """Name and hash of what each job of a zoo of these models writes."""
    text = ZOO.format(calib=json.dumps(calib), rows=rows)
    for model in models:
        text += f"[[models]]\npath = {json.dumps(str(model))}\nname = {json.dumps(model.parent.name)}\n"
    (scratch / "zoo.toml").write_text(text)
    done = run("zoo", "run", str(scratch / "zoo.toml"), "-o", str(scratch / "zoo"))
    yield "zoo ends", str(done.returncode)
    for path in sorted((scratch / "zoo").rglob("*.onnx")):
        if "objects" not in path.parts:
            yield f"zoo {path.relative_to(scratch / 'zoo')}", content(path)


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """The command of the onnxslim_bert that this Python imports."""
    command = [sys.executable, "-m", "onnxslim_bert", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def content(output: Path) -> str:
    """The sha256 of a model, or of every model of a folder, without metadata; weights beside it included."""
    digest = hashlib.sha256()
    for path in sorted(output.glob("*.onnx")) if output.is_dir() else [output]:
        model = onnx.load(path)
        del model.metadata_props[:]
        model.producer_version = ""
        digest.update(model.SerializeToString(deterministic=True))
    return digest.hexdigest()


if __name__ == "__main__":
    main()
