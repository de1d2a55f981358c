"""What one model answers to every row of a data set."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnxruntime as ort

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.batches import Batches
from onnxslim_bert.calibration.datasets import Dataset
from onnxslim_bert.calibration.feeding import roles_for
from onnxslim_bert.calibration.tokenizer import Tokenizer
from onnxslim_bert.errors import ModelError
from onnxslim_bert.graph.sessions import open_session
from onnxslim_bert.graph.signature import fixed_shape, input_dtypes
from onnxslim_bert.model.model_config import read_config
from onnxslim_bert.model.role_names import Roles
from onnxslim_bert.progress import Progress
from onnxslim_bert.proof.class_order import class_order
from onnxslim_bert.proof.fidelity import Kind, mean_pooled
from onnxslim_bert.targets.table import CPU
from onnxslim_bert.targets.target import Target

# Rank-2 outputs with these words in their name are embeddings, not logits.
EMBEDDING_WORDS = ("embed", "pool", "hidden", "state")


@dataclass(frozen=True)
class Outputs:
    """One model's answers, in the data set's order.

    output: name of the graph output. kind: "classes" for logits of two or more classes, "score" for a single one,
    "embedding" for a vector (of a rank-3 output, its mean over the real tokens). values: float32 [rows, width].
    roles: what each input was fed with. order: the data set's class for each of the
    model's, by their names; None where the numbers are taken as they are.
    """

    path: Path
    output: str
    kind: Kind
    values: Array
    roles: Roles = field(default_factory=dict)
    order: tuple[int, ...] | None = None

    @property
    def finite(self) -> Array:
        """Rows without NaN or infinity, bool [rows]."""
        rows: Array = np.logical_and.reduce(np.isfinite(self.values), axis=1)
        return rows

    def predictions(self) -> Array:
        """What the metric takes [rows]: the data set's class, -1 where not finite; or the score, 0 where not finite."""
        if self.kind == "classes":
            classes = self.values.argmax(axis=1)
            return np.where(self.finite, classes if self.order is None else np.array(self.order)[classes], -1)
        return np.where(self.finite, self.values[:, 0], 0.0)


def evaluate(
    path: Path,
    dataset: Dataset,
    tokenizer: Tokenizer | None,
    *,
    batch_size: int = 1,
    max_length: int = 128,
    threads: int = 1,
    like: Outputs | None = None,
    progress: Progress | None = None,
) -> Outputs:
    """Run the model over the whole set, batch by batch; only its answers are kept.

    A batch of one runs at its natural length. like: answers of the model that this one was made of. Raises ModelError
    when the model cannot run or answers something else than one vector a row.
    """
    session = open_session(path, threads=threads)
    return answer(
        session,
        path,
        dataset,
        tokenizer,
        batch_size=batch_size,
        max_length=max_length,
        like=like,
        progress=progress,
    )


def answer(
    session: ort.InferenceSession,
    path: Path,
    dataset: Dataset,
    tokenizer: Tokenizer | None,
    *,
    batch_size: int = 1,
    max_length: int = 128,
    target: Target = CPU,
    like: Outputs | None = None,
    progress: Progress | None = None,
) -> Outputs:
    """The same for a session that is open on `target`; its inputs take what those of the model of `like` do."""
    taken = [value.name for value in session.get_inputs()]
    roles = like.roles if like is not None else {}
    if not roles or any(name not in roles for name in taken):
        roles = roles_for(path, dataset, tokenizer, session)
    roles = {name: roles[name] for name in taken if name in roles}
    batches = feed_batches(session, roles, dataset, tokenizer, batch_size=batch_size, max_length=max_length)
    rows: list[Array] = []
    answers: list[Array] = []
    name: str = ""
    kind: Kind = "embedding"
    for done, batch in enumerate(batches, start=1):
        outputs = run(session, path, batch.feeds)
        name, kind = choose_output(path, outputs)
        rows.append(batch.rows)
        answers.append(one_per_row(path, name, outputs[name], batch.mask))
        if progress:
            progress(f"running {path.name} on {target.name}", done, len(batches))
    widths = sorted({answer.shape[1] for answer in answers})
    if len(widths) > 1:
        spread = f"{widths[0]} to {widths[-1]}"
        raise ModelError(f"{path}: output {name} is {spread} wide, as the text: needed logits or an embedding")
    values = np.concatenate(answers)[np.argsort(np.concatenate(rows))]
    found = Outputs(path, name, "score" if kind == "classes" and widths == [1] else kind, values, roles)
    return replace(found, order=like.order) if like is not None else in_order_of(dataset, found)


def in_order_of(dataset: Dataset, outputs: Outputs) -> Outputs:
    """`outputs` with the classes in the order of the data set, where names say it. Raises as `class_order`."""
    if outputs.kind != "classes":
        return outputs
    return replace(outputs, order=class_order(read_config(outputs.path), dataset, outputs.values.shape[1]))


def feed_batches(
    session: ort.InferenceSession,
    roles: Roles,
    dataset: Dataset,
    tokenizer: Tokenizer | None,
    *,
    batch_size: int,
    max_length: int,
    sort_by_length: bool = True,
) -> Batches:
    """The data set as feeds of this session, in the batch size and length that its graph fixes, if any."""
    batch, length = fixed_shape(session)
    return Batches(
        dataset,
        tokenizer,
        input_dtypes(session),
        roles,
        batch_size=batch or batch_size,
        max_length=min(max_length, length or max_length),
        fixed_length=length,
        sort_by_length=sort_by_length,
    )


def run(session: ort.InferenceSession, path: Path, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Every output by name; a model with a fixed batch is filled up with copies of the last row."""
    batch, _ = fixed_shape(session)
    rows = len(next(iter(feeds.values())))
    if batch is not None and rows < batch:
        feeds = {name: np.concatenate([feed, feed[-1:].repeat(batch - rows, axis=0)]) for name, feed in feeds.items()}
    try:
        outputs = session.run(None, feeds)
    except Exception as error:  # onnxruntime's exceptions share no base class
        shapes = ", ".join(f"{name} {list(feed.shape)}" for name, feed in feeds.items())
        raise ModelError(f"{path} does not run on {shapes}: {str(error).splitlines()[0]}") from error
    names = [output.name for output in session.get_outputs()]
    return {name: np.asarray(output)[:rows] for name, output in zip(names, outputs, strict=True)}


def choose_output(path: Path, outputs: Mapping[str, Array]) -> tuple[str, Kind]:
    """The output to compare and what it holds.

    Logits are the rank-2 output named so, else the first of rank 2 that is no embedding: neither by its name, nor as
    the pooled form of a rank-3 output of the same width. Without logits, the first output of rank 2 or 3.
    """
    vectors = {name: o for name, o in outputs.items() if o.dtype.kind == "f" and o.ndim in (2, 3)}
    if not vectors:
        found = ", ".join(f"{name} {o.dtype}{list(o.shape)}" for name, o in outputs.items())
        raise ModelError(f"{path} answers {found}: needed logits [batch, classes] or states [batch, length, width]")
    state_widths = {o.shape[2] for o in vectors.values() if o.ndim == 3}
    logits = [
        name
        for name, o in vectors.items()
        if o.ndim == 2 and o.shape[1] not in state_widths and not any(w in name.lower() for w in EMBEDDING_WORDS)
    ]
    if "logits" in vectors and vectors["logits"].ndim == 2:
        return "logits", "classes"
    return (logits[0], "classes") if logits else (next(iter(vectors)), "embedding")


def one_per_row(path: Path, name: str, output: Array, mask: Array) -> Array:
    """float32 [batch, width] of an output [batch, width] or [batch, length, width]; mask [batch, length]."""
    if output.shape[: output.ndim - 1] != mask.shape[: output.ndim - 1]:
        raise ModelError(f"{path}: output {name} is {list(output.shape)} for a batch of {list(mask.shape)} tokens")
    return (mean_pooled(output, mask) if output.ndim == 3 else output).astype(np.float32)
