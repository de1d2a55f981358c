"""What the configuration beside a model says of its task: Hugging Face's config.json, and how tokens are pooled."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onnxslim_bert.documents import read_json, read_object
from onnxslim_bert.errors import DataError, shown
from onnxslim_bert.graph.model_folders import folder_with

CONFIG, MODULES, SENTENCES = "config.json", "modules.json", "config_sentence_transformers.json"
UNNAMED = re.compile(r"label[_ ]?(\d+)", re.IGNORECASE)  # LABEL_0: what transformers writes where nobody gave names
POOLING = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "first",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "last",
}


@dataclass(frozen=True)
class ModelConfig:
    """What config.json says of a model; empty where it says nothing.

    architecture: a class of transformers, like BertForTokenClassification.
    problem_type: of sequence classification.
    labels: names of the classes in the model's order, as many as it has; () where they have only numbers.
    classes: how many there are; 0 where that is not said.
    ids: the number of each class by name, other spellings included.
    hidden: width of the token states. vocabulary: words that it knows.
    pooling: how a sentence-transformers folder makes one vector of them: mean, first, max or last.
    modules: what such a folder runs, in order, like Transformer, Pooling, Dense. similarity: by what its vectors are
    compared, as the folder names it; empty where it says nothing, and then it is the cosine.
    """

    architecture: str = ""
    problem_type: str = ""
    labels: tuple[str, ...] = ()
    classes: int = 0
    ids: Mapping[str, int] = field(default_factory=dict)
    hidden: int = 0
    vocabulary: int = 0
    pooling: str = ""
    modules: tuple[str, ...] = ()
    similarity: str = ""


def read_config(model: Path) -> ModelConfig:
    """The configuration in the folder of the file `model`, or above it where that folder is called onnx.

    Raises DataError for a file that cannot be read.
    """
    file = folder_with(model, CONFIG) / CONFIG
    found = read_object(file) if file.exists() else {}
    architectures = found.get("architectures")
    ids = {str(name): number for name, number in _mapping(found.get("label2id")).items() if isinstance(number, int)}
    names = _names(found.get("id2label"), file) or _in_order(ids)
    named = names if names and not all(UNNAMED.fullmatch(name) for name in names) else ()
    folder = folder_with(model, MODULES)
    modules = _modules(folder / MODULES)
    sentences = read_object(folder / SENTENCES) if modules and (folder / SENTENCES).exists() else {}
    widths = (found.get(key) for key in ("hidden_size", "dim", "d_model"))
    size = found.get("vocab_size")
    return ModelConfig(
        architecture=str(architectures[0]) if isinstance(architectures, list) and architectures else "",
        problem_type=str(found.get("problem_type") or ""),
        labels=named,
        classes=len(names),
        ids={**ids, **{name: number for number, name in enumerate(named)}} if named else {},
        hidden=next((width for width in widths if type(width) is int and width > 0), 0),
        vocabulary=size if type(size) is int and size > 0 else 0,
        pooling=_pooling(folder),
        modules=modules,
        similarity=str(sentences.get("similarity_fn_name") or ""),
    )


def _names(given: Any, place: Path) -> tuple[str, ...]:
    """The names of classes 0, 1, ... in id2label; empty when they are not given.

    Raises DataError for numbers with gaps, and for names that are no text.
    """
    try:
        numbered = sorted((int(number), name) for number, name in _mapping(given).items())
    except (ValueError, TypeError) as error:
        raise DataError(f"{place}: id2label holds a class that is no number: needed numbers from 0 up") from error
    if [number for number, _ in numbered] != list(range(len(numbered))):
        raise DataError(f"{place}: id2label numbers its classes with gaps: needed 0 to {len(numbered) - 1}")
    if wrong := [name for _, name in numbered if not isinstance(name, str | int | float)]:
        raise DataError(f"{place}: id2label names a class {shown(wrong[0])}: needed names")
    return tuple(str(name) for _, name in numbered)


def _in_order(ids: Mapping[str, int]) -> tuple[str, ...]:
    """The names of classes 0, 1, ... by label2id, of several names for one the first; empty where one has none."""
    names = {number: name for name, number in reversed(list(ids.items()))}
    return tuple(names[number] for number in range(len(names))) if names.keys() == set(range(len(names))) else ()


def _modules(file: Path) -> tuple[str, ...]:
    """The kinds of the modules that modules.json lists; empty without it."""
    entries = read_json(file) if file.exists() else []
    if not isinstance(entries, list):
        return ()
    return tuple(str(entry.get("type", "")).rpartition(".")[2] for entry in entries if isinstance(entry, dict))


def _pooling(folder: Path) -> str:
    """What 1_Pooling/config.json says; empty without one."""
    file = folder / "1_Pooling" / CONFIG
    if not (folder / MODULES).exists() or not file.exists():
        return ""
    found = read_object(file)
    return next((name for key, name in POOLING.items() if found.get(key) is True), "")


def _mapping(given: Any) -> Mapping[str, Any]:
    return given if isinstance(given, dict) else {}
