"""What one model answered to every row of a data set."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.model.role_names import Roles
from onnxslim_bert.proof.reading import Reading
from onnxslim_bert.proof.tasks.answers import Answer, said
from onnxslim_bert.proof.tasks.neighbours import of_length_one
from onnxslim_bert.proof.tasks.table import Kind

ABSENT = float(np.float32(-1e30))  # the score of an ending that a question does not have: finite, and never chosen


@dataclass(frozen=True)
class Outputs:
    """One model's answers, in the data set's order.

    output: name of the graph output.
    kind: what it is taken for (`reading`).
    values: float32 [units, width]. A unit is a row; of a tagger a word; of a reader of passages a token, with the
    logits of a start and an end; of an embedding of pairs a text, all first texts before all second ones.
    roles: what each input was fed with.
    order: the data set's class for each of the model's, by their names; None where the numbers are taken as they are.
    reading: what decided kind and output.
    owner: the row of each unit, [units], where a row has several; else None.
    words: of a tagger, the number of each unit's word in its row, [units]; else None.
    answers: the likeliest span of each question to a passage. silent: whether some of the questions have no answer, so
    that the model may say so.
    names: of the model's classes.
    notes: what the rows lost on their way, texts that were cut for instance.
    similarity: by what embeddings are compared: "dot", else the cosine.
    """

    path: Path
    output: str
    kind: Kind
    values: Array
    roles: Roles = field(default_factory=dict)
    order: tuple[int, ...] | None = None
    reading: Reading | None = None
    owner: Array | None = None
    words: Array | None = None
    answers: tuple[Answer, ...] = ()
    silent: bool = False
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    similarity: str = ""

    @property
    def finite(self) -> Array:
        """Units without NaN or infinity, bool [units]."""
        rows: Array = np.logical_and.reduce(np.isfinite(self.values), axis=1)
        return rows

    @property
    def found(self) -> tuple[str, ...]:
        """The text of each answer in a passage, "" for none."""
        return said(self.answers, silent=self.silent)

    @property
    def broken(self) -> int:
        """Rows with NaN or infinity."""
        units = ~self.finite
        return int(np.sum(units)) if self.owner is None else len(np.unique(self.owner[units]))

    def vectors(self) -> Array:
        """Embeddings whose dot products are their similarity, float64 [units, width]: of length 1, or as they are where
        the folder says "dot"; NaN stays."""
        values = self.values.astype(np.float64)
        return values if self.similarity == "dot" else of_length_one(values)

    def predictions(self) -> Array:
        """The prediction of each unit, [units]: the class, as the data set numbers it, or the score.

        Where the output is not finite, the class is -1 and the score 0.
        """
        if self.kind in ("classes", "tokens"):
            classes = self.values.argmax(axis=1)
            return np.where(self.finite, classes if self.order is None else np.array(self.order)[classes], -1)
        return np.where(self.finite, self.values[:, 0], 0.0)
