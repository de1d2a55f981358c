"""Tiny random-weight sequence classifiers of the BERT family, and where each role lives in their source code."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import transformers

from onnxslim_bert.arrays import Array

HEADS, HEAD_DIM, LAYERS = 3, 4, 3

# No two widths are equal, so that a wrong axis or a transpose cannot hide.
SIZES = {
    "vocab_size": 37,
    "hidden_size": HEADS * HEAD_DIM,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": 20,
    "max_position_embeddings": 23,
    "type_vocab_size": 2,
    "num_labels": 5,
    "hidden_act": "gelu",
}
DISTILBERT_SIZES = {
    "vocab_size": 37,
    "dim": HEADS * HEAD_DIM,
    "n_layers": LAYERS,
    "n_heads": HEADS,
    "hidden_dim": 20,
    "max_position_embeddings": 23,
    "num_labels": 5,
    "activation": "gelu",
}

BERT_LAYER = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "output": "attention.output.dense",
    "up": "intermediate.dense",
    "down": "output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "ffn_norm": "output.LayerNorm",
}
PRE_NORM_LAYER = BERT_LAYER | {"attention_norm": "attention.LayerNorm", "ffn_norm": "intermediate.LayerNorm"}
DISTILBERT_LAYER = {
    "query": "attention.q_lin",
    "key": "attention.k_lin",
    "value": "attention.v_lin",
    "output": "attention.out_lin",
    "up": "ffn.lin1",
    "down": "ffn.lin2",
    "attention_norm": "sa_layer_norm",
    "ffn_norm": "output_layer_norm",
}
ALBERT_LAYER = {
    "query": "attention.query",
    "key": "attention.key",
    "value": "attention.value",
    "output": "attention.dense",
    "up": "ffn",
    "down": "ffn_output",
    "attention_norm": "attention.LayerNorm",
    "ffn_norm": "full_layer_layer_norm",
}
EMBEDDINGS = {
    "word": "embeddings.word_embeddings",
    "position": "embeddings.position_embeddings",
    "type": "embeddings.token_type_embeddings",
    "norm": "embeddings.LayerNorm",
}


@dataclass(frozen=True)
class Family:
    """One architecture: its configuration, and paths of modules below `base`, its encoder."""

    model_type: str
    base: str
    sizes: Mapping[str, Any] = field(default_factory=lambda: SIZES)
    layer: str = "encoder.layer.{}"
    roles: Mapping[str, str] = field(default_factory=lambda: BERT_LAYER)
    embeddings: Mapping[str, str] = field(default_factory=lambda: EMBEDDINGS)
    final_norm: str | None = None
    pre_norm: bool = False
    position_offset: int = 0


FAMILIES = {
    "bert": Family("bert", "bert"),
    "roberta": Family("roberta", "roberta", SIZES | {"type_vocab_size": 1, "layer_norm_eps": 1e-5}, position_offset=2),
    "distilbert": Family(
        "distilbert",
        "distilbert",
        DISTILBERT_SIZES,
        layer="transformer.layer.{}",
        roles=DISTILBERT_LAYER,
        embeddings={role: path for role, path in EMBEDDINGS.items() if role != "type"},
    ),
    "albert": Family(
        "albert",
        "albert",
        SIZES | {"embedding_size": 10},
        layer="encoder.albert_layer_groups.0.albert_layers.0",  # one layer, used three times
        roles=ALBERT_LAYER,
        embeddings=EMBEDDINGS | {"projection": "encoder.embedding_hidden_mapping_in"},
    ),
    "electra": Family(
        "electra",
        "electra",
        SIZES | {"embedding_size": 10},
        embeddings=EMBEDDINGS | {"projection": "embeddings_project"},
    ),
    "prenorm": Family(
        "roberta-prelayernorm",
        "roberta_prelayernorm",
        SIZES | {"type_vocab_size": 1},
        roles=PRE_NORM_LAYER,
        final_norm="LayerNorm",
        pre_norm=True,
        position_offset=2,
    ),
}


def classifier(family: Family, attention: str, seed: int) -> Any:
    """The sequence classifier of `family` with random weights; the same weights whatever the attention."""
    return build("AutoModelForSequenceClassification", family.model_type, family.sizes, attention, seed)


def build(loader: str, model_type: str, sizes: Mapping[str, Any], attention: str, seed: int) -> Any:
    """A transformers model with random weights."""
    config = transformers.AutoConfig.for_model(model_type, **sizes)
    model = getattr(transformers, loader).from_config(config, attn_implementation=attention).eval()
    model.config.use_cache = False
    return randomize(model, seed)


def randomize(model: Any, seed: int) -> Any:
    """Fill every parameter: normal with deviation 0.3 for matrices, 0.1 for vectors, around 1 for LayerNorm's gamma."""
    rng = np.random.default_rng(seed)
    for name, parameter in model.named_parameters():
        mean = 1.0 if parameter.ndim == 1 and name.endswith("weight") else 0.0
        values = rng.normal(mean, 0.1 if parameter.ndim == 1 else 0.3, parameter.shape)
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(values))
    return model


def reference(family: Family, model: Any, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """What discovery must find, by name, and what the model answers.

    `layers.{i}.{role}.weight` and `.bias`: query, key, value, output, up, down (weights [out, in]) and
    attention_norm, ffn_norm.
    `embeddings.{word|position|type}.weight`, `embeddings.{norm|projection}.weight` and `.bias`,
    `final_norm.weight` and `.bias`.
    heads, head_dim, hidden, eps, pre_norm, activation, position_offset (the row of the first real position).
    The inputs by name, [3, 7] with padding, and `logits` [3, 5].
    """
    with torch.no_grad():
        logits = model(**{name: torch.from_numpy(values) for name, values in feeds.items()}).logits
    encoder = getattr(model, family.base)
    found = {
        "heads": np.array(HEADS),
        "head_dim": np.array(HEAD_DIM),
        "hidden": np.array(HEADS * HEAD_DIM),
        "eps": np.array(encoder.get_submodule(family.embeddings["norm"]).eps),
        "pre_norm": np.array(family.pre_norm),
        "activation": np.array("gelu"),
        "position_offset": np.array(family.position_offset),
        **feeds,
        "logits": logits.numpy(),
    }
    for name, path in places(family):
        for kind, parameter in encoder.get_submodule(path).named_parameters():
            found[f"{name}.{kind}"] = parameter.detach().numpy()
    return found


def places(family: Family) -> Iterator[tuple[str, str]]:
    """(name in the reference, path of the module below the encoder)."""
    for role, path in family.embeddings.items():
        yield f"embeddings.{role}", path
    for index in range(LAYERS):
        for role, path in family.roles.items():
            yield f"layers.{index}.{role}", f"{family.layer.format(index)}.{path}"
    if family.final_norm:
        yield "final_norm", family.final_norm
