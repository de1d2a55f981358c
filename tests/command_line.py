"""The command line as a user meets it: a folder with a model to work in, a run, and what it left behind."""

import contextlib
import hashlib
import io
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tokenizers
from graphs import fixture
from tokenizers import models, pre_tokenizers, processors

from onnxslim_bert.cli import main

ROOT = Path(__file__).parents[1]
SPECIAL = ("[PAD]", "[CLS]", "[SEP]", "[UNK]")
WORDS = tuple(f"w{number}" for number in range(33))  # with the special tokens, the vocabulary of the fixtures
CLASSES = 5


@dataclass(frozen=True)
class Outcome:
    """What a run printed and its exit code."""

    code: int
    out: str
    err: str


def run(*arguments: object) -> Outcome:
    """`onnxslim ARGUMENTS` in this process."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    kept = signal.getsignal(signal.SIGTERM)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            signal.signal(signal.SIGTERM, kept)
    return Outcome(code, out.getvalue(), err.getvalue())


def run_process(*arguments: object, **variables: str) -> Outcome:
    """`python -m onnxslim_bert ARGUMENTS` in a process of its own, with these environment variables besides."""
    command = [sys.executable, "-m", "onnxslim_bert", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(**variables), check=False)
    return Outcome(done.returncode, done.stdout, done.stderr)


def run_python(code: str, *arguments: object, **variables: str) -> str:
    """What a program prints in a fresh interpreter that sees the package."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, env=environment(**variables), check=True
    ).stdout.strip()


def environment(**variables: str) -> dict[str, str]:
    """The environment of a process that sees the package."""
    return {**os.environ, "PYTHONPATH": str(ROOT), **variables}


def assert_refused(outcome: Outcome, *parts: str) -> None:
    """Exit code 2, nothing on stdout, and one line on stderr that holds every one of `parts`."""
    assert outcome.code == 2, outcome
    assert outcome.out == ""
    assert outcome.err.startswith("onnxslim: ")
    assert outcome.err.count("\n") == 1
    assert outcome.err.endswith("\n")
    for part in parts:
        assert part in outcome.err


def contents(folder: Path) -> dict[str, str]:
    """Every file and link below `folder` with a hash of its bytes."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            found[str(path.relative_to(folder))] = f"-> {path.readlink()}"
        elif path.is_file():
            found[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            found[str(path.relative_to(folder))] = "folder"
    return found


def workspace(folder: Path, name: str = "bert-ts17-sdpa") -> Path:
    """A copy of the fixture `name` in `folder`, with a tokenizer and the rows calib.tsv and eval.tsv beside it."""
    model = folder / "model.onnx"
    model.write_bytes(fixture(name).read_bytes())
    write_tokenizer(folder)
    write_rows(folder / "calib.tsv", 40, seed=1)
    write_rows(folder / "eval.tsv", 24, seed=2)
    return model


def write_tokenizer(folder: Path, words: Sequence[str] = WORDS) -> None:
    """tokenizer.json: one token a word, [CLS] and [SEP] around and between."""
    vocabulary = {token: number for number, token in enumerate((*SPECIAL, *words))}
    backend = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    backend.save(str(folder / "tokenizer.json"))


def write_rows(path: Path, count: int, seed: int, texts: int = 1) -> None:
    """A tsv of `count` labelled rows with one or two random texts each."""
    names = ["sentence"] if texts == 1 else ["sentence1", "sentence2"]
    rng = np.random.default_rng(seed)
    lines = ["\t".join([*names, "label"])]
    for row in range(count):
        sentences = [" ".join(rng.choice(WORDS, rng.integers(2, 9))) for _ in names]
        lines.append("\t".join([*sentences, str(row % CLASSES)]))
    path.write_text("\n".join(lines) + "\n")
