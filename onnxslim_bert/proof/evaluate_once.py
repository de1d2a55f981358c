"""The answers of a model to a data set, kept for whoever asks for them again."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.cache import key_of
from onnxslim_bert.calibration.dataset import Dataset
from onnxslim_bert.calibration.tokenizer import Tokenizer
from onnxslim_bert.calibration.working import Working
from onnxslim_bert.graph.files import file_sha256, model_files
from onnxslim_bert.model.model_config import read_config
from onnxslim_bert.model.role_names import InputRole
from onnxslim_bert.proof.evaluation import evaluate, in_order_of
from onnxslim_bert.proof.outputs import Outputs
from onnxslim_bert.proof.reading import Reading
from onnxslim_bert.proof.tasks.answers import Answer


def evaluate_once(path: Path, dataset: Dataset, working: Working) -> Outputs:
    """`evaluate` without a batch size; or what the cache holds of the same file, rows, tokenizer and settings."""
    reader, cache = _reader(working.tokenizer), working.cache
    if cache is None or reader is None:
        return evaluate(path, dataset, working)
    config = asdict(read_config(path))
    model, rows = file_sha256(*model_files(path)), dataset.fingerprint()
    key = key_of(
        "answers-at-once",
        task=dataset.task,
        output=dataset.output,
        config=config,
        model=model,
        rows=rows,
        reader=reader,
        max_length=working.max_length,
        threads=working.threads,
    )
    held = cache.get(key)
    if held is None:
        outputs = evaluate(path, dataset, working)
        cache.put(key, _arrays(outputs))
        return outputs
    return in_order_of(dataset, _outputs(path, held))


def _arrays(outputs: Outputs) -> dict[str, Array]:
    """All of `outputs` but its path and the order of its classes, which the data set decides."""
    assert outputs.reading is not None
    said = {
        "output": outputs.output,
        "kind": outputs.kind,
        "roles": {name: asdict(role) for name, role in outputs.roles.items()},
        "reading": asdict(outputs.reading),
        "answers": [(answer.text, answer.lead) for answer in outputs.answers],
        "silent": outputs.silent,
        "names": outputs.names,
        "notes": outputs.notes,
        "similarity": outputs.similarity,
    }
    units = {name: array for name in ("owner", "words") if (array := getattr(outputs, name)) is not None}
    return {"values": outputs.values, "said": np.array(json.dumps(said)), **units}


def _outputs(path: Path, held: Mapping[str, Array]) -> Outputs:
    said = json.loads(held["said"].item())
    reading = {**said["reading"], **{name: tuple(said["reading"][name]) for name in ("outputs", "others")}}
    return Outputs(
        path=path,
        output=said["output"],
        kind=said["kind"],
        values=held["values"],
        roles={name: InputRole(**role) for name, role in said["roles"].items()},
        reading=Reading(**reading),
        owner=held.get("owner"),
        words=held.get("words"),
        answers=tuple(Answer(*answer) for answer in said["answers"]),
        silent=said["silent"],
        names=tuple(said["names"]),
        notes=tuple(said["notes"]),
        similarity=said["similarity"],
    )


def _reader(tokenizer: Tokenizer | None) -> list[Any] | None:
    """Everything that decides which ids texts become; empty for ready inputs, None where it is not one file."""
    if tokenizer is None:
        return []
    if tokenizer.file is None:
        return None
    return [file_sha256(tokenizer.file), tokenizer.pad_id, tokenizer.max_length, sorted(tokenizer.inputs.items())]
