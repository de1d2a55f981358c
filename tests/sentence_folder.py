"""A sentence-transformers folder around the fixture of an encoder, as a test may change it."""

import json
from pathlib import Path

from command_line import write_rows, write_tokenizer
from graphs import fixture

CARD = """\
---
license: mit
pipeline_tag: sentence-similarity
tags: [sentence-transformers]
model-index:
- name: tiny
  results:
  - task: {type: sts}
    dataset: {type: other, name: Other}
    metrics: [{type: spearman, value: 0.5}]
---
# Tiny

What its author wrote | of it.
"""
FILES = {
    "config.json": {
        "architectures": ["BertModel"],
        "hidden_size": 12,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "intermediate_size": 20,
        "vocab_size": 37,
        "max_position_embeddings": 16,
        "model_type": "bert",
    },
    "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 16}
    | {f"{name.lower()}_token": f"[{name}]" for name in ("PAD", "CLS", "SEP", "UNK")},
    "special_tokens_map.json": {f"{name.lower()}_token": f"[{name}]" for name in ("PAD", "CLS", "SEP", "UNK")},
    "modules.json": [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ],
    "sentence_bert_config.json": {"max_seq_length": 16, "do_lower_case": False},
    "1_Pooling/config.json": {"word_embedding_dimension": 12, "pooling_mode_mean_tokens": True},
    "2_Dense/config.json": {"unused": True},
}


def sentence_folder(folder: Path, model: str = "onnx/model.onnx") -> Path:
    """A folder of a model whose ONNX file is called `model`, with PyTorch weights that nobody may read."""
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    write_tokenizer(folder)
    (folder / "README.md").write_text(CARD)
    (folder / "LICENSE").write_text("MIT\n")
    (folder / ".gitattributes").write_text("*.onnx filter=lfs\n")
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").write_text("ref\n")
    (folder / "model.safetensors").write_bytes(b"weights of torch")
    (folder / "2_Dense" / "model.safetensors").write_bytes(b"weights of a dense layer")
    (folder / model).parent.mkdir(exist_ok=True)
    (folder / model).write_bytes(fixture("bert-features").read_bytes())
    return folder


def texts(folder: Path) -> tuple[Path, Path]:
    """Files of calibration and of evaluation rows for it, in `folder`."""
    calibration, evaluation = folder / "calib.tsv", folder / "eval.tsv"
    write_rows(calibration, 24, seed=1)
    write_rows(evaluation, 16, seed=2)
    return calibration, evaluation
