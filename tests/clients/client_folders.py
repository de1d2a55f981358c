"""A sentence-transformers folder and a classifier's, quantized as a user would, for programs that load such folders."""

import shutil
from pathlib import Path

import numpy as np
from command_line import ROOT, run
from sentence_folder import sentence_folder, texts

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.dataset import Dataset
from onnxslim_bert.calibration.load_tokenizer import tokenizer_of
from onnxslim_bert.calibration.working import Working
from onnxslim_bert.proof.evaluate_once import evaluate_once

SENTENCES = ("w1 w2 w3", "w30", "w7 w7 w8 w9 w10 w11 w12", "unknown w4")
REVIEWS = ("a fine film", "dull , and far too long", "never before has so much been made of so little")


def quantized_classifier(folder: Path) -> Path:
    """The reference model's folder with dynamic int8: onnx/model_quantized.onnx."""
    source = folder / "sst2-tiny"
    source.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "model.onnx"):
        shutil.copyfile(ROOT / "models/sst2-tiny" / name, source / name)
    done = run("slim", source, "-p", "canonicalize?,fuse,quantize-dynamic", "-o", folder / "out")
    assert done.code == 0, done
    return folder / "out"


def quantized_embedder(folder: Path, *options: str) -> Path:
    """A folder of an encoder with mean pooling: onnx/model_quantized.onnx, or what the options of `quantize` say."""
    (folder / "tiny").mkdir()
    calibration, _ = texts(folder)
    source = sentence_folder(folder / "tiny")
    done = run("quantize", source, "--calib", calibration, "--method", "minmax", "-o", folder / "out", *options)
    assert done.code == 0, done
    return folder / "out"


def our_answers(model: Path, sentences: tuple[str, ...]) -> Array:
    """What this program reads as the model's answers, [sentence, width]."""
    dataset = Dataset("sentences", "", tuple((text,) for text in sentences), None, None)
    answers = evaluate_once(model, dataset, Working(tokenizer=tokenizer_of(model)))
    return np.asarray(answers.values)
