"""An encoder as it was found in a graph: its layers and the dense matrices of each, by name."""

from dataclasses import dataclass

from onnxslim_bert.model.attention_form import AttentionForm
from onnxslim_bert.model.embeddings import Embeddings
from onnxslim_bert.model.linear import Linear


@dataclass(frozen=True)
class Layer:
    """One encoder layer. It holds names of tensors and nodes, not the nodes, so that a rewrite leaves it valid.

    query, key, value, output: the dense layers of the attention.
    up, down: those of the feed-forward, down(act(up(x))); None where none is recognised.
    gate: where neurons are gated, down(act(gate(x)) * up(x)); a neuron is then a column of both. Else None.
    context: the attention result that `output` reads, [batch, seq, heads * head_dim].
    form: what the nodes from query, key and value to context compute; None when that is not proven.
    reason: why it is not.
    first_token: query, output, feed-forward and norms work on position 0 only.
    """

    index: int
    heads: int
    head_dim: int
    query: Linear
    key: Linear
    value: Linear
    output: Linear
    up: Linear | None
    down: Linear | None
    context: str
    form: AttentionForm | None
    reason: str = ""
    first_token: bool = False
    gate: Linear | None = None

    @property
    def groups(self) -> int:
        """How many units the heads consist of that do not depend on each other: heads that share a key are one."""
        return self.heads if self.key.d_out == self.query.d_out else max(1, self.key.d_out // self.head_dim)

    @property
    def linears(self) -> dict[str, Linear]:
        """The layer's dense matrices by role, in execution order."""
        roles = ("query", "key", "value", "output", "gate", "up", "down")
        return {role: linear for role in roles if (linear := getattr(self, role)) is not None}


@dataclass(frozen=True)
class Encoder:
    """A transformer encoder. hidden: width of the residual stream. head: the dense layers of the task behind it."""

    embeddings: Embeddings
    layers: tuple[Layer, ...]
    hidden: int
    head: tuple[Linear, ...] = ()

    @property
    def mask(self) -> str | None:
        """The tensor that says which tokens are real, a graph input or made of token ids; None where none is proven."""
        return next((layer.form.mask for layer in self.layers if layer.form is not None), None)
