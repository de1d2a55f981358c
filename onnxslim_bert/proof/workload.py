"""What timed runs are fed: the same rows for every model, random at a fixed length or real texts at their own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnxruntime as ort

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.dataset import Dataset
from onnxslim_bert.calibration.feeding import roles_for
from onnxslim_bert.calibration.tokenizer import Tokenizer, TokenRow
from onnxslim_bert.calibration.working import Working
from onnxslim_bert.errors import ModelError
from onnxslim_bert.graph.signature import fixed_shape, in_declared_rank
from onnxslim_bert.model.role_names import Roles, parse_named
from onnxslim_bert.proof.evaluation import feed_batches, run

Feeds = Mapping[str, Array]

SAFE_IDS = 16  # random ids stay below this: every vocabulary has as many rows


@dataclass(frozen=True)
class Workload:
    """`batch` rows a run, of `length` tokens each, or of real texts at their natural length when it is None."""

    batch: int
    length: int | None


def same_feeds(
    models: Sequence[tuple[Path, ort.InferenceSession]],
    workload: Workload,
    dataset: Dataset | None,
    working: Working,
    rounds: int,
) -> list[list[Feeds]]:
    """For every model its feeds: one batch of random ids, or as many batches of drawn texts as there are rounds.

    Raises ModelError when a model cannot run on them, before any is timed.
    """
    if dataset is None:
        dataset, reader = random_rows(workload, working.seed, working.inputs)
        working = replace(working, tokenizer=reader, max_length=workload.length or working.max_length)
    else:
        dataset = dataset.alone()
        drawn = np.random.default_rng(working.seed).permutation(len(dataset))
        dataset = dataset.take(np.resize(drawn, rounds * workload.batch).tolist())
    fed: list[list[Feeds]] = []
    plans: set[bytes] = set()
    roles: Roles = {}
    for path, session in models:
        check_room(path, session, workload)
        taken = [value.name for value in session.get_inputs()]
        if not roles or any(name not in roles for name in taken):
            roles = roles_for(path, dataset, working.tokenizer)
        batches = feed_batches(
            session,
            {name: roles[name] for name in taken if name in roles},
            dataset,
            working,
            batch_size=workload.batch,
            sort_by_length=False,
        )
        held = list(batches)
        run(session, path, held[0].feeds)
        fed.append([in_declared_rank(session, batch.feeds) for batch in held])
        plans.add(b"|".join(batch.rows.tobytes() for batch in held))
    if len(plans) > 1:
        raise ModelError("a model without a mask input cannot batch texts as the others do: time them at batch 1")
    return fed


def random_rows(workload: Workload, seed: int, inputs: str = "") -> tuple[Dataset, Tokenizer]:
    """Rows of random ids that fill the workload's length, and the tokenizer that reads them."""
    length = workload.length or 1
    ids = np.random.default_rng(seed).integers(1, SAFE_IDS, size=(workload.batch, length)).tolist()

    def encode(texts: Sequence[tuple[str, ...]], max_length: int) -> list[TokenRow]:
        return [TokenRow(ids[int(row[0])][:max_length], [0] * min(length, max_length)) for row in texts]

    rows = tuple((str(index),) for index in range(workload.batch))
    return Dataset("random", "", rows, None, None), Tokenizer(SAFE_IDS, 0, length, encode, inputs=parse_named(inputs))


def check_room(path: Path, session: ort.InferenceSession, workload: Workload) -> None:
    """Raise ModelError when the graph fixes a shape that the workload does not fit."""
    batch, length = fixed_shape(session)
    if batch not in (None, workload.batch):
        raise ModelError(f"{path} runs batches of {batch} only: it cannot be timed at batch {workload.batch}")
    if length is not None and workload.length is not None and workload.length > length:
        raise ModelError(f"{path} runs {length} tokens at most: it cannot be timed at length {workload.length}")
