"""Tiny ONNX models whose answers a reader can compute by hand, and the data that they read.

The words w0, w1, ... have ids 1, 2, ...; 0 pads. A row's answer is the sum of its words' rows of the table.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.dataset import Dataset
from onnxslim_bert.calibration.glue import Task
from onnxslim_bert.calibration.load_tokenizer import load_tokenizer
from onnxslim_bert.calibration.tokenizer import Tokenizer
from onnxslim_bert.calibration.working import Working

WORDS = 7


def classifier(
    path: Path,
    table: Array,
    *,
    shape: tuple[int | str, int | str] = ("batch", "length"),
    output: str = "logits",
    mask_name: str = "attention_mask",
) -> Path:
    """output [batch, width] = sum over the real tokens of table [WORDS + 1, width]."""
    width = table.shape[1]
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["states"]),
        helper.make_node("Cast", [mask_name], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["column"]),
        helper.make_node("Mul", ["states", "column"], ["real"]),
        helper.make_node("ReduceSum", ["real", "length_axis"], [output], keepdims=0),
    ]
    return _save(path, nodes, ("input_ids", mask_name), shape, (output, (shape[0], width)), table)


def embedder(path: Path, table: Array) -> Path:
    """last_hidden_state [batch, length, width] = table[input_ids]."""
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["last_hidden_state"]),
        helper.make_node("Identity", ["attention_mask"], ["unused"]),
    ]
    output = "last_hidden_state", ("batch", "length", table.shape[1])
    return _save(path, nodes, ("input_ids", "attention_mask"), ("batch", "length"), output, table)


def tokenizer(folder: Path) -> Tokenizer:
    """Reads words apart at spaces; written to `folder` as tokenizer.json."""
    vocabulary = {"[PAD]": 0, **{f"w{index}": index + 1 for index in range(WORDS)}}
    document = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[PAD]"},
    }
    (folder / "tokenizer.json").write_text(json.dumps(document))
    return load_tokenizer(folder)


def reading(folder: Path, max_length: int = 128) -> Working:
    """Work with that tokenizer."""
    return Working(max_length, tokenizer=tokenizer(folder))


def per_token(path: Path, table: Array, names: tuple[str, ...], squeezed: bool = False) -> Path:
    """[batch, length, width] = table[input_ids], or as many outputs [batch, length] as there are names."""
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["each"]),
        helper.make_node("Identity", ["attention_mask"], ["unused"]),
    ]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ("batch", "length")) for name in names]
    if squeezed:
        for place, name in enumerate(names):
            nodes.append(helper.make_node("Gather", ["each", f"place{place}"], [name], axis=2))
    else:
        nodes[0].output[0] = names[0]
        outputs = [helper.make_tensor_value_info(names[0], TensorProto.FLOAT, ("batch", "length", table.shape[1]))]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ("batch", "length"))
        for name in ("input_ids", "attention_mask")
    ]
    places = [numpy_helper.from_array(np.array(place), f"place{place}") for place in range(len(names))]
    graph = helper.make_graph(nodes, "each", inputs, outputs, [numpy_helper.from_array(table, "table"), *places])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def configured(folder: Path, architecture: str, labels: tuple[str, ...] = (), **more: object) -> Working:
    """The tokenizer of words, and a config.json that says so."""
    folder.mkdir(exist_ok=True)
    document = {"architectures": [f"Bert{architecture}"], "id2label": dict(enumerate(labels)), **more}
    (folder / "config.json").write_text(json.dumps(document))
    return reading(folder)


def texts(rows: list[str], labels: Sequence[float] | None = None, metric: Task | None = "accuracy") -> Dataset:
    """A data set of these rows."""
    kind = np.float32 if metric == "pearson-spearman" else np.int64
    values = None if labels is None else np.array(labels, kind)
    return Dataset("rows", "dev", tuple((row,) for row in rows), values, metric if labels else None)


def _save(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: tuple[str, ...],
    shape: tuple[int | str, int | str],
    output: tuple[str, tuple[int | str, ...]],
    table: Array,
) -> Path:
    constants = {
        "table": table.astype(np.float32),
        "last": np.array([2], np.int64),
        "length_axis": np.array([1], np.int64),
    }
    graph = helper.make_graph(
        nodes,
        "answering",
        [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name in inputs],
        [helper.make_tensor_value_info(output[0], TensorProto.FLOAT, output[1])],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path
