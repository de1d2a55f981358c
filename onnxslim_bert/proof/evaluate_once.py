"""The answers of a model to a data set, kept for whoever asks for them again."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from onnxslim_bert.calibration.cache import Cache, key_of
from onnxslim_bert.calibration.datasets import Dataset
from onnxslim_bert.calibration.tokenizer import Tokenizer
from onnxslim_bert.graph.files import file_sha256, model_files
from onnxslim_bert.model.role_names import InputRole
from onnxslim_bert.progress import Progress
from onnxslim_bert.proof.evaluation import Outputs, evaluate, in_order_of


def evaluate_once(
    cache: Cache | None,
    path: Path,
    dataset: Dataset,
    tokenizer: Tokenizer | None,
    *,
    max_length: int,
    threads: int,
    progress: Progress | None = None,
) -> Outputs:
    """`evaluate`, a row at a time; or what `cache` holds of the same file, rows, tokenizer and settings."""
    reader = _reader(tokenizer)
    if cache is None or reader is None:
        return evaluate(path, dataset, tokenizer, max_length=max_length, threads=threads, progress=progress)
    model, rows = file_sha256(*model_files(path)), dataset.fingerprint()
    key = key_of("answers-by-role", model=model, rows=rows, reader=reader, max_length=max_length, threads=threads)
    held = cache.get(key)
    if held is None:
        outputs = evaluate(path, dataset, tokenizer, max_length=max_length, threads=threads, progress=progress)
        names = {"output": np.array(outputs.output), "kind": np.array(outputs.kind)}
        names["roles"] = np.array(json.dumps({name: asdict(role) for name, role in outputs.roles.items()}))
        cache.put(key, {"values": outputs.values} | names)
        return outputs
    roles = {name: InputRole(**role) for name, role in json.loads(held["roles"].item()).items()}
    return in_order_of(dataset, Outputs(path, str(held["output"]), held["kind"].item(), held["values"], roles))


def _reader(tokenizer: Tokenizer | None) -> list[Any] | None:
    """Everything that decides which ids texts become; empty for ready inputs, None where it is not one file."""
    if tokenizer is None:
        return []
    if tokenizer.file is None:
        return None
    return [file_sha256(tokenizer.file), tokenizer.pad_id, tokenizer.max_length, sorted(tokenizer.inputs.items())]
