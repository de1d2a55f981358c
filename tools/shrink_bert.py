"""A narrow BERT classifier cut out of a wide one, before any training.

The wide model's hidden states lie close to a subspace. Written in a basis of that subspace its weights are those of a
narrower model with the same residual stream; only LayerNorm, whose gain belongs to single coordinates, has no exact
counterpart there, and is fitted.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertForSequenceClassification


@dataclass(frozen=True)
class Size:
    """Of the narrow model. layers: which of the wide one's layers it keeps."""

    layers: tuple[int, ...]
    hidden: int
    ffn: int
    positions: int


def shrink(wide: Any, pieces: Tensor, batches: Sequence[Tensor], size: Size) -> tuple[Any, Tensor]:
    """The narrow model, and its basis in the wide one's hidden space: orthonormal columns [wide, narrow].

    pieces: rows of the wide word table that the narrow one keeps [vocabulary]; the first is the padding.
    batches: sample texts to measure on, in the narrow vocabulary [rows, length].
    """
    with torch.no_grad():
        wide_batches = [pieces[ids] for ids in batches]
        basis = residual_basis(wide, wide_batches, size.hidden)
        narrow = build(wide, len(pieces), size)
        for index, new in zip(size.layers, narrow.bert.encoder.layer, strict=True):
            old = wide.bert.encoder.layer[index]
            copy_layer(old, new, basis, feed_forward_units(wide, old, wide_batches, size.ffn))
        copy_ends(wide, narrow, basis, pieces)
        # In the order of computation, so that each is fitted on what the ones before it give.
        for old, new in norms(wide, narrow, size):
            fit_norm(new, outputs(narrow, new, batches, entering=True), outputs(wide, old, wide_batches) @ basis)
    return narrow, basis


def residual_basis(wide: Any, batches: Sequence[Tensor], width: int) -> Tensor:
    """Principal directions of all hidden states, spun so that every coordinate carries its share [wide, width]."""
    moment = torch.zeros(wide.config.hidden_size, wide.config.hidden_size)
    for ids in batches:
        for states in run(wide, ids).hidden_states:
            real = states[ids > 0]
            moment += real.T @ real / len(real)
    principal = torch.linalg.eigh(moment).eigenvectors[:, -width:]
    return principal @ torch.linalg.qr(torch.randn(width, width)).Q


def build(wide: Any, vocabulary: int, size: Size) -> Any:
    """The narrow model with random weights; its heads are as wide as the wide one's."""
    config = type(wide.config)(
        vocab_size=vocabulary,
        hidden_size=size.hidden,
        num_hidden_layers=len(size.layers),
        num_attention_heads=size.hidden // head_dim(wide),
        intermediate_size=size.ffn,
        max_position_embeddings=size.positions,
        id2label=wide.config.id2label,
        label2id=wide.config.label2id,
    )
    return BertForSequenceClassification(config).eval()


def copy_layer(old: Any, new: Any, basis: Tensor, units: Tensor) -> None:
    """One layer's dense weights in the basis: the heads that write most, and the given feed-forward units."""
    writes = old.attention.output.dense.weight.unflatten(1, (-1, old.attention.self.attention_head_size))
    heads = writes.square().sum((0, 2)).topk(new.attention.self.num_attention_heads).indices.sort().values
    columns = torch.arange(writes[0].numel()).view(writes.shape[1:])[heads].flatten()
    for name in ("query", "key", "value"):
        reads, narrow = getattr(old.attention.self, name), getattr(new.attention.self, name)
        fill(narrow, reads.weight[columns] @ basis, reads.bias[columns])
    for wide, narrow, kept in (
        (old.attention.output.dense, new.attention.output.dense, columns),
        (old.output.dense, new.output.dense, units),
    ):
        fill(narrow, basis.T @ wide.weight[:, kept], basis.T @ wide.bias)
    up = old.intermediate.dense
    fill(new.intermediate.dense, up.weight[units] @ basis, up.bias[units])


def copy_ends(wide: Any, narrow: Any, basis: Tensor, pieces: Tensor) -> None:
    """The embedding tables, the pooler and the classifier in the basis."""
    old, new = wide.bert.embeddings, narrow.bert.embeddings
    new.word_embeddings.weight.copy_(old.word_embeddings.weight[pieces] @ basis)
    positions = old.position_embeddings.weight[: len(new.position_embeddings.weight)]
    new.position_embeddings.weight.copy_(positions @ basis)
    new.token_type_embeddings.weight.copy_(old.token_type_embeddings.weight @ basis)
    pooler = wide.bert.pooler.dense
    fill(narrow.bert.pooler.dense, basis.T @ pooler.weight @ basis, basis.T @ pooler.bias)
    fill(narrow.classifier, wide.classifier.weight @ basis, wide.classifier.bias)


def feed_forward_units(wide: Any, layer: Any, batches: Sequence[Tensor], count: int) -> Tensor:
    """The units of one layer that write most: mean activation times the length of what they write [count]."""
    activity = outputs(wide, layer.intermediate, batches).abs().mean(0)
    strength: Tensor = activity * layer.output.dense.weight.norm(dim=0)
    return strength.topk(count).indices.sort().values


def norms(wide: Any, narrow: Any, size: Size) -> Iterator[tuple[Any, Any]]:
    """The LayerNorms of both models that belong together, in the order of computation."""
    yield wide.bert.embeddings.LayerNorm, narrow.bert.embeddings.LayerNorm
    for index, new in zip(size.layers, narrow.bert.encoder.layer, strict=True):
        old = wide.bert.encoder.layer[index]
        yield old.attention.output.LayerNorm, new.attention.output.LayerNorm
        yield old.output.LayerNorm, new.output.LayerNorm


def fit_norm(norm: Any, entering: Tensor, wanted: Tensor) -> None:
    """Gain and bias that bring the norm's output closest to `wanted`, a least squares line for each coordinate."""
    normal = nn.functional.layer_norm(entering, norm.normalized_shape, eps=norm.eps)
    spread, target = normal - normal.mean(0), wanted - wanted.mean(0)
    gain = (spread * target).sum(0) / spread.square().sum(0)
    fill(norm, gain, wanted.mean(0) - gain * normal.mean(0))


def outputs(model: Any, module: Any, batches: Sequence[Tensor], *, entering: bool = False) -> Tensor:
    """What leaves `module` (or what enters it) at every real token of the batches [tokens, width]."""
    seen: list[Tensor] = []
    hook = module.register_forward_hook(lambda _, inputs, output: seen.append(inputs[0] if entering else output))
    for ids in batches:
        run(model, ids)
    hook.remove()
    return torch.cat([values[ids > 0] for values, ids in zip(seen, batches, strict=True)])


def run(model: Any, ids: Tensor) -> Any:
    """Logits and all hidden states of a padded batch [rows, length]; id 0 is the padding."""
    return model(input_ids=ids, attention_mask=(ids > 0).long(), output_hidden_states=True)


def head_dim(model: Any) -> int:
    """Of every attention head."""
    return int(model.config.hidden_size // model.config.num_attention_heads)


def fill(module: Any, weight: Tensor, bias: Tensor) -> None:
    """Give a module new parameters of the same shapes."""
    module.weight.copy_(weight)
    module.bias.copy_(bias)
