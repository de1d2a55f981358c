"""Probe rows: made-up token rows on which a pass is held to its promise that answers stay the same."""

from dataclasses import dataclass

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.errors import DataError, ModelError
from onnxslim_bert.graph.signature import fixed_axes, flat_shape
from onnxslim_bert.model.dense import embeddings_of
from onnxslim_bert.model.input_roles import graph_roles, roles_of
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.positions import most_tokens
from onnxslim_bert.model.role_names import InputRole, Role, Roles
from onnxslim_bert.model.session import model_session

FULL, RIGHT, LEFT, EMPTY = "no padding", "padding on the right", "padding on the left", "no real token"
ROWS: dict[int, tuple[str, ...]] = {  # by length, so that odd and even ones, ends of blocks and short rows occur
    1: (FULL,),
    2: (FULL, RIGHT),
    7: (FULL, RIGHT, LEFT),
    16: (LEFT, RIGHT),
    63: (RIGHT,),
}
LONG = 128  # tokens, where no position limits a row
LONGEST = 2048  # tokens in a row, where positions allow more: attention takes memory with the square


@dataclass(frozen=True)
class Probe:
    """One batch of made-up rows, the same for equal `limits` and `what`.

    what: its rows in words, like "2 x 7 tokens, no padding and padding on the left". feeds: by input, [batch, seq].
    """

    limits: "Limits"
    what: str
    feeds: dict[str, Array]

    @property
    def empty(self) -> bool:
        """Whether its rows have no real token."""
        return self.what.endswith(EMPTY)

    @property
    def long(self) -> bool:
        """Whether its rows are longer than all in ROWS; such rows take the most time."""
        return bool(next(iter(self.feeds.values())).shape[1] > max(ROWS))


@dataclass(frozen=True)
class Limits:
    """What rows a model takes, which decides its probe rows.

    roles: for each input its name and what it takes: ids, mask, types or positions. vocabulary, types: token ids and
    token types are below these. longest: tokens in the longest row. batch, seq: the fixed shape of the inputs; None
    where it is not fixed.
    """

    roles: tuple[tuple[str, InputRole], ...]
    vocabulary: int
    types: int
    longest: int
    batch: int | None
    seq: int | None

    @classmethod
    def of(cls, model: Model) -> "Limits | None":
        """The limits of `model`; None where its embeddings cannot be read, or what an input takes is not known."""
        try:
            embeddings, longest = embeddings_of(model), most_tokens(model)
            roles = _roles(model)
        except (ModelError, DataError):
            return None
        table = embeddings.token_type
        batch, seq = fixed_axes(flat_shape(tensor.shape or (), tensor.dtype) for tensor in model.graph.inputs)
        return cls(
            tuple(roles.items()),
            embeddings.vocabulary or 1,
            1 if table is None else len(model.array(table)),
            min(longest or LONG, LONGEST),
            batch,
            seq,
        )

    def probes(self) -> list[Probe]:
        """Rows of every length and padding that the model takes, one without a real token; the same ones every time."""
        lengths = {length: kinds for length, kinds in ROWS.items() if length < self.longest}
        lengths[self.longest] = (FULL,)
        if self.seq is not None:
            lengths = {self.seq: (FULL, RIGHT, LEFT)}
        found = [self._probe(length, kinds) for length, kinds in lengths.items()]
        if self.batch is not None:
            found = [self._probe(n, (kind,) * self.batch) for n, kinds in lengths.items() for kind in kinds]
        if not any(taken.role == "mask" for _, taken in self.roles):
            return [probe for probe in found if probe.what.endswith(FULL)] if self.batch is not None else found
        return [*found, self._probe(self.seq or min(7, self.longest), (EMPTY,) * (self.batch or 1))]

    def _probe(self, length: int, kinds: tuple[str, ...]) -> Probe:
        rng = np.random.default_rng([length, len(kinds)])
        shape = len(kinds), length
        real = np.stack([_mask(kind, length) for kind in kinds])
        ids = rng.integers(min(2, self.vocabulary - 1), self.vocabulary, shape)  # 0 or 1 may be the id of padding
        if not any(taken.role == "mask" for _, taken in self.roles):
            ids = np.where(real, ids, min((length + 1) % 2, self.vocabulary - 1))  # a mask may be made of the ids
        made: dict[Role, Array] = {"ids": ids, "types": rng.integers(0, self.types, shape)}
        feeds = {name: made[taken.role] if taken.role in made else taken.written(real) for name, taken in self.roles}
        return Probe(self, f"{len(kinds)} x {length} tokens, {' and '.join(dict.fromkeys(kinds))}", feeds)


def _roles(model: Model) -> Roles:
    """What each input takes: read from the file that the model came from if it names them all, else from its graph."""
    if model.path is not None and model.path.is_file():
        found = roles_of(model.path)
        if all(tensor.name in found for tensor in model.graph.inputs):
            return {tensor.name: found[tensor.name] for tensor in model.graph.inputs}
    return graph_roles(model.graph, lambda: model_session(model))


def _mask(kind: str, length: int) -> Array:
    """[length] bool, True where a row of this kind has a real token: two thirds of a padded row, one at least."""
    real = {FULL: length, EMPTY: 0}.get(kind, -(-2 * length // 3))
    kept: Array = np.arange(length) < real
    return kept[::-1] if kind == LEFT else kept
