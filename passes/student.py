"""Put a model of another kind in the encoder's place, to be trained by `distill`."""

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np
import onnx_graphsurgeon as gs

from onnxslim_bert.errors import PassError
from onnxslim_bert.graph.edit import Builder, redirect
from onnxslim_bert.model.halves import remedy
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.rewriting.contract import Change, Context, Pass
from onnxslim_bert.rewriting.students import Reader, bag_of_vectors, bidirectional_lstm, dense, first_vectors

Kind = Literal["static", "bilstm"]
READERS: dict[str, Reader] = {"static": bag_of_vectors, "bilstm": bidirectional_lstm}


@dataclass(frozen=True)
class Student(Pass):
    """Replace the whole encoder by a model of another kind, hundreds of times as fast; train it with `distill`.

    It has the source's inputs and outputs and knows nothing yet: `student{kind=static},distill{words=true,rate=0.005}`.
    Example: MiniLM-L6 with width=64 and 15,000 word rows is 3.9 MB in float32, and answers by a lookup and two small
    products.

    kind: static takes the mean of the token vectors, in whatever order they are. bilstm reads them in order, from both
        ends, with one LSTM each, and goes on with their last states.
    width: of a token's vector. They start as the word table's rows on its principal axes.
    hidden: of the LSTMs' states, and of the layer (ReLU) between what was read and the outputs.
    seed: of the weights that start at random.

    For outputs that are one row a text, such as logits or a sentence's embedding.

    Tang et al. 2019, https://arxiv.org/abs/1903.12136 (bilstm); https://github.com/MinishLab/model2vec (static)
    """

    name: ClassVar[str] = "student"
    ends_encoder: ClassVar[bool] = True
    kind: Kind = "static"
    width: int = 64
    hidden: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind not in get_args(Kind):
            raise PassError(f"student: kind={self.kind!r} is not one of {', '.join(get_args(Kind))}")
        for option in ("width", "hidden"):
            if getattr(self, option) < 1:
                raise PassError(f"student: {option}={getattr(self, option)} is not 1 or more")

    def apply(self, model: Model, ctx: Context) -> Change:
        encoder = model.encoder
        if encoder.embeddings.word is None or encoder.embeddings.ids is None:
            raise PassError("student: the graph looks no words up in a table, of which the token vectors are made")
        widths = {tensor.name: _width(tensor) for tensor in model.graph.outputs}
        table = model.array(encoder.embeddings.word)
        if table.dtype != np.float32:
            raise PassError(f"student: the word table is {table.dtype}; {remedy(model.graph, table.dtype)}")
        rng, build = np.random.default_rng(self.seed), Builder(model.graph, "student")
        tensors = model.graph.tensors()
        ids = tensors[encoder.embeddings.ids]
        if encoder.embeddings.map is not None:
            ids = build.node("Gather", "rows", [tensors[encoder.embeddings.map], ids], axis=0)
        vectors = build.constant("vectors", first_vectors(table, self.width))
        rows = build.node("Gather", "tokens", [vectors, ids], axis=0)
        mask = None if encoder.mask is None else tensors[encoder.mask]
        read, wide = READERS[self.kind](build, rows, mask, self.width, self.hidden, rng)
        inner = build.node("Relu", "inner", [dense(build, "hidden", read, (wide, self.hidden), rng)])
        for output in list(model.graph.outputs):
            made = dense(build, output.name, inner, (self.hidden, widths[output.name]), rng)
            redirect(model.graph, output, made)
        model.changed()
        size = sum(constant.values.nbytes for constant in model.constants().values())
        note = f"{self.kind}, token vectors of {self.width}, {size / 1e6:.1f} MB; it knows nothing before `distill`"
        return Change(1, note)


def _width(output: gs.Tensor) -> int:
    """The size of a row of `output` [batch, width]."""
    shape = list(output.shape or ())
    if len(shape) != 2 or not isinstance(shape[1], int):
        raise PassError(f"student: the output {output.name!r} is {shape}; needed one row a text, [batch, width]")
    return int(shape[1])
