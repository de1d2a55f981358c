"""The kinds of `random_encoders` as PyTorch modules, so that exporters put them into their own words."""

import torch
from random_encoders import HEADS, HIDDEN, LAYERS, LOW, NEURONS, POSITIONS, SIZE, VOCABULARY, WIDTH, Kind
from torch import Tensor, nn
from torch.nn import functional


class Encoder(nn.Module):
    """ids [batch, seq] -> states [batch, seq, hidden], their mean [batch, hidden], or five numbers of token 0."""

    def __init__(self, kind: Kind, seed: int = 0, layers: int = LAYERS) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.kind = kind
        self.words = nn.Embedding(VOCABULARY, HIDDEN)
        self.places = nn.Embedding(POSITIONS, HIDDEN)
        self.distances = nn.Embedding(10, HEADS)
        self.norms = nn.ModuleList(_norm(kind) for _ in range(2 * layers + 1))
        self.attentions = nn.ModuleList(_Attention(kind) for _ in range(layers))
        self.feed_forwards = nn.ModuleList(_FeedForward(kind) for _ in range(layers))
        self.classes = nn.Linear(HIDDEN, 5)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        places = torch.arange(input_ids.shape[1])
        bias = self.scores_bias(input_ids, attention_mask, places)
        state = self.words(input_ids)
        if self.kind.positions == "table":
            state = state + self.places(places)
        if not self.kind.before:
            state = self.norms[-1](state)
        blocks = [block for pair in zip(self.attentions, self.feed_forwards, strict=True) for block in pair]
        for block, norm in zip(blocks, self.norms, strict=False):
            given = (bias, places) if isinstance(block, _Attention) else ()
            state = state + block(norm(state), *given) if self.kind.before else norm(block(state, *given) + state)
        state = self.norms[-1](state) if self.kind.before else state
        if self.kind.head == "first":
            return self.classes(state[:, 0])
        return state.mean(1) if self.kind.head == "mean" else state

    def scores_bias(self, ids: Tensor, mask: Tensor | None, places: Tensor) -> Tensor | float:
        """What is added to the scores, [batch or 1, heads or 1, seq or 1, seq]."""
        total: Tensor | float = 0.0
        if self.kind.mask != "none":
            seen = mask if mask is not None else (ids != self.kind.pad).long()
            total = (1.0 - seen[:, None, None, :].float()) * LOW
        apart = (places[None, :] - places[:, None]).abs()
        if self.kind.window:
            total = total + torch.where(apart > self.kind.window, LOW, 0.0)
        if self.kind.bias == "alibi":
            total = total - apart.float() * 0.5 ** torch.arange(1, HEADS + 1).float()[:, None, None]
        elif self.kind.bias == "table":
            total = total + self.distances(apart.clamp(max=9)).permute(2, 0, 1)
        return total


class _Attention(nn.Module):
    def __init__(self, kind: Kind) -> None:
        super().__init__()
        self.kind = kind
        narrow = kind.groups * SIZE
        sizes = (WIDTH, narrow, narrow) if kind.packing == "none" else (3 * WIDTH,)
        self.dense = nn.ModuleList(nn.Linear(HIDDEN, size) for size in sizes)
        self.output = nn.Linear(WIDTH, HIDDEN)

    def forward(self, x: Tensor, bias: Tensor | float, places: Tensor) -> Tensor:
        query, key, value = (piece.transpose(1, 2) for piece in self.packed(x))
        shared = HEADS // self.kind.groups
        if shared > 1:
            key, value = (piece.repeat_interleave(shared, 1) for piece in (key, value))
        if self.kind.rotary:
            query, key = (_rotated(piece, places) for piece in (query, key))
        scores = (query * SIZE**-0.5) @ key.transpose(2, 3) + bias
        mixed = scores.softmax(-1) @ value
        return self.output(mixed.transpose(1, 2).flatten(2))

    def packed(self, x: Tensor) -> tuple[Tensor, ...]:
        """Query, key and value, [batch, seq, heads, size] each."""
        if self.kind.packing == "none":
            return tuple(dense(x).unflatten(2, (-1, SIZE)) for dense in self.dense)
        product = self.dense[0](x)
        if self.kind.packing == "side by side":
            return tuple(piece.unflatten(2, (HEADS, SIZE)) for piece in product.chunk(3, 2))
        if self.kind.packing == "three":
            return product.unflatten(2, (3, HEADS, SIZE)).unbind(2)
        return product.unflatten(2, (HEADS, 3 * SIZE)).chunk(3, 3)


class _FeedForward(nn.Module):
    def __init__(self, kind: Kind) -> None:
        super().__init__()
        self.kind = kind
        self.up = nn.Linear(HIDDEN, NEURONS if kind.gate in ("none", "apart") else 2 * NEURONS)
        self.gate = nn.Linear(HIDDEN, NEURONS)
        self.down = nn.Linear(NEURONS, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        if self.kind.gate == "none":
            return self.down(functional.silu(self.up(x)))
        if self.kind.gate == "apart":
            up, gate = self.up(x), self.gate(x)
        elif self.kind.gate == "split":
            gate, up = self.up(x).chunk(2, -1)
        else:
            both = self.up(x)
            up, gate = both[..., :NEURONS], both[..., NEURONS:]
        return self.down(functional.silu(gate) * up)


class _Rms(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(1 + 0.1 * torch.randn(HIDDEN))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.gamma


def _norm(kind: Kind) -> nn.Module:
    return nn.LayerNorm(HIDDEN, eps=1e-6) if kind.norm == "layer" else _Rms()


def _rotated(x: Tensor, places: Tensor) -> Tensor:
    """Su et al. 2021, https://arxiv.org/abs/2104.09864"""
    half = SIZE // 2
    rates = 10000.0 ** (-torch.arange(half).float() / half)
    angles = places.float()[:, None] * torch.cat([rates, rates])
    turned = torch.cat([-x[..., half:], x[..., :half]], -1)
    return x * angles.cos() + turned * angles.sin()
