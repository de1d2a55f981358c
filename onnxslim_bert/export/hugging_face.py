"""ONNX from a Hugging Face encoder (needs the [export] extra: torch and transformers)."""

import contextlib
import inspect
import math
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.documents import read_object
from onnxslim_bert.errors import DataError, ModelError, OutputError, SlimError
from onnxslim_bert.export.sentence_model import is_sentence_model, sentence_model
from onnxslim_bert.export.torch_export import OPSETS, Axes, Exporter, export_module, first_line, quiet, require
from onnxslim_bert.graph.files import check_output, staging
from onnxslim_bert.graph.naming import give_names
from onnxslim_bert.graph.native_path import check_utf8

Attention = Literal["sdpa", "eager"]

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
ROWS = {0: "batch"}
TOKENS = {0: "batch", 1: "sequence"}
CHOICES = {0: "batch", 1: "choices"}

# How an architecture's name ends -> the class that loads it, and its outputs.
TASKS: Mapping[str, tuple[str, Axes]] = {
    "ForSequenceClassification": ("AutoModelForSequenceClassification", {"logits": ROWS}),
    "ForTokenClassification": ("AutoModelForTokenClassification", {"logits": TOKENS}),
    "ForMaskedLM": ("AutoModelForMaskedLM", {"logits": TOKENS}),
    "ForQuestionAnswering": ("AutoModelForQuestionAnswering", {"start_logits": TOKENS, "end_logits": TOKENS}),
    "ForMultipleChoice": ("AutoModelForMultipleChoice", {"logits": CHOICES}),
    "ForPreTraining": ("AutoModel", {"last_hidden_state": TOKENS}),
    "Model": ("AutoModel", {"last_hidden_state": TOKENS}),
}

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
)


def export_encoder(
    source: str | Path,
    output: Path,
    *,
    exporter: Exporter = "dynamo",
    attention: Attention | None = None,
    opset: int | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the encoder in `source` as one ONNX file, and its tokenizer's files beside it.

    source: a Hugging Face folder, or the id of a model on the hub.
    Inputs are input_ids, attention_mask and token_type_ids, int64 [batch, sequence], those that the model uses; for
    multiple choice [batch, choices, sequence].
    The first of the configuration's `architectures` decides the outputs: logits, or last_hidden_state; with a
    modules.json they are last_hidden_state and sentence_embedding. attention: by default what the configuration asks
    for, else SDPA, or eager where transformers has no other for this model (MPNet, DeBERTa).

    Raises SlimError without torch and transformers; ModelError when the model cannot be loaded or exported, lacks
    weights that its architecture has, or when ONNX Runtime disagrees with torch; OutputError when a file exists (unless
    `overwrite`) or cannot be written.
    """
    opset = opset or OPSETS[exporter]
    attention = attention or asked_attention(source)
    if exporter == "torchscript" and attention != "eager" and opset < 14:
        raise ModelError(f"TorchScript has no SDPA attention at opset {opset}: needs opset 14, or eager attention")
    given = [path for path in Path(source).iterdir() if path.is_file()] if Path(source).is_dir() else []
    check_output(output, overwrite=overwrite, inputs=given)

    model, outputs = load_model(source, attention)
    files = tokenizer_files(source)
    check_copies(files, output.parent, overwrite)
    chooses = CHOICES in outputs.values()
    shapes = [(2, 3, 8), (3, 4, 11), (1, 2, 5)] if chooses else [(2, 8), (3, 11), (1, 5)]
    traced, *checked = (example_feeds(model, shape) for shape in shapes)
    axes = {**dict.fromkeys(traced, {**CHOICES, 2: "sequence"} if chooses else TOKENS), **outputs}
    with staging(output) as folder:
        made = folder / output.name
        export_module(model, made, traced, checked, axes, exporter=exporter, opset=opset)
        names = [(copy, output.parent / copy.name) for copy in copies(files, output.parent, folder)]
        give_names([*names, (made, output)], overwrite=overwrite, sources=given)
    return output


def load_model(source: str | Path, attention: Attention | None) -> tuple[Any, Axes]:
    """The float32 model in `source`, ready to trace, and its outputs with their axes; attention: None for the best."""
    torch, transformers = require("torch"), require("transformers")
    if not Path(source).is_dir() and not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", str(source)):
        raise ModelError(f"{source}: neither a folder nor the id of a model on the hub")
    check_utf8(Path(source), "safetensors", ModelError)
    try:
        with quiet(), no_progress_bars():
            config = transformers.AutoConfig.from_pretrained(source, trust_remote_code=False)
            name = (config.architectures or ["Model"])[0]
            task = next((end for end in TASKS if name.endswith(end)), None)
            if task is None:
                raise ModelError(f"{source}: cannot export {name}, only architectures that end in {', '.join(TASKS)}")
            loader, outputs = TASKS["Model" if is_sentence_model(source) else task]
            auto = getattr(transformers, loader)
            model, info = auto.from_pretrained(
                source,
                attn_implementation=attention,
                dtype=torch.float32,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except SlimError:
        raise
    except Exception as error:  # whatever a wrong value in a configuration, or damaged weights, make of it
        if attention == "sdpa" and "attn_implementation" in str(error):
            raise ModelError(f"{source}: transformers has no SDPA attention for this model: use eager") from error
        raise ModelError(f"{source}: cannot load the model: {first_line(error)}") from error
    if loader == "AutoModel" and getattr(model, "pooler", None) is not None:
        model.pooler = None  # else the pooled vector is a second output
    check_weights(source, name, [key for key in info["missing_keys"] if loader != "AutoModel" or "pooler" not in key])
    if is_sentence_model(source):
        return sentence_model(Path(source), model.eval()), {**outputs, "sentence_embedding": ROWS}
    return model.eval(), outputs


def check_weights(source: str | Path, name: str, missing: Sequence[str]) -> None:
    """Raise ModelError when weights of the architecture `name` are not in the files, and would be random."""
    if missing:
        listed = ", ".join(sorted(missing)[:3])
        raise ModelError(
            f"{source}: config.json names {name}, and the files lack {len(missing)} of its weights ({listed}), which "
            "would be random: name the architecture that was saved, such as the encoder alone"
        )


def asked_attention(source: str | Path) -> Attention | None:
    """The attention that config.json asks for; None where it does not."""
    file = Path(source) / "config.json"
    try:
        found = read_object(file) if file.is_file() else {}
    except DataError:
        return None  # transformers says what is wrong with it
    asked = found.get("attn_implementation", found.get("_attn_implementation"))
    return asked if asked in ("sdpa", "eager") else None


def example_feeds(model: Any, shape: tuple[int, ...]) -> dict[str, Array]:
    """A ragged batch for a transformers model: input name -> int64 `shape`, [..., length]; the last row is full."""
    config = model.config
    rows, length = math.prod(shape[:-1]), shape[-1]
    rng = np.random.default_rng(shape[0])
    pad = getattr(config, "pad_token_id", None) or 0
    lengths = np.linspace(length // 2, length, rows).astype(int)
    lengths[-1] = length
    real = np.arange(length) < lengths[:, None]
    ids = rng.integers(0, config.vocab_size, [rows, length])
    types = getattr(config, "type_vocab_size", 0)
    feeds = {
        "input_ids": np.where(real, np.where(ids == pad, pad + 1, ids), pad),
        "attention_mask": real.astype(np.int64),
        "token_type_ids": np.where(real, rng.integers(0, max(types, 1), [rows, length]), 0),
    }
    # A model with a single token type (RoBERTa) takes the input, but its tokenizer does not make it.
    taken = [name for name in INPUTS if name != "token_type_ids" or types > 1]
    used = [name for name in taken if name in inspect.signature(model.forward).parameters]
    return {name: feeds[name].reshape(shape) for name in used}


def tokenizer_files(source: str | Path) -> list[Path]:
    """The tokenizer's files in a folder or a hub model, those that there are."""
    folder = Path(source)
    if not folder.is_dir():
        hub = require("huggingface_hub")
        with no_progress_bars():
            folder = Path(hub.snapshot_download(str(source), allow_patterns=list(TOKENIZER_FILES)))
    return [folder / name for name in TOKENIZER_FILES if (folder / name).is_file()]


def check_copies(files: Sequence[Path], folder: Path, overwrite: bool) -> None:
    """OutputError if a copy of `files` would change a file of `folder`."""
    for file in files:
        target = folder / file.name
        if not overwrite and target.exists() and not _holds(target, file):
            raise OutputError(f"{target} exists and differs from the model's: choose another folder or --force")


def copies(files: Sequence[Path], folder: Path, made: Path) -> list[Path]:
    """Copies in `made` of those `files` that `folder` does not hold already, with the same bytes."""
    missing = [file for file in files if not _holds(folder / file.name, file)]
    return [Path(shutil.copyfile(file, made / file.name)) for file in missing]


def _holds(target: Path, file: Path) -> bool:
    return target.exists() and target.read_bytes() == file.read_bytes()


@contextlib.contextmanager
def no_progress_bars() -> Iterator[None]:
    """No progress bars from transformers and huggingface_hub."""
    bars = require("transformers.utils.logging")
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bar()
