"""Run one model over a data set and gather its answers."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime as ort

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.batches import Batches, OneLength
from onnxslim_bert.calibration.dataset import CHOICE, Dataset
from onnxslim_bert.calibration.feeding import roles_for
from onnxslim_bert.calibration.tokenizer import Tokenizer
from onnxslim_bert.calibration.working import Working
from onnxslim_bert.errors import BoundsError, ModelError, shown
from onnxslim_bert.graph.runtime_words import in_words
from onnxslim_bert.graph.sessions import answers, open_session
from onnxslim_bert.graph.signature import fixed_shape, input_dtypes
from onnxslim_bert.model.model_config import MODULES, SENTENCES, ModelConfig, read_config
from onnxslim_bert.model.role_names import Roles
from onnxslim_bert.proof.at_once import TOGETHER, same_at_once
from onnxslim_bert.proof.class_order import class_order
from onnxslim_bert.proof.collect import Collected
from onnxslim_bert.proof.outputs import Outputs
from onnxslim_bert.proof.reading import Reading, read_model
from onnxslim_bert.proof.tasks.choices import by_question, check_scored_apart
from onnxslim_bert.proof.tasks.masked import masked_rows
from onnxslim_bert.proof.tasks.ranking import relevance
from onnxslim_bert.proof.tasks.rows import check_rows
from onnxslim_bert.targets.table import CPU
from onnxslim_bert.targets.target import Target
from onnxslim_bert.wording import plural

_APART: dict[tuple[object, ...], bool] = {}


def evaluate(
    path: Path, dataset: Dataset, working: Working, *, batch_size: int | None = None, like: Outputs | None = None
) -> Outputs:
    """Run the model over the whole set on the CPU provider, batch by batch; only its answers are kept.

    A batch of one runs at its natural length. Without a batch size each row is answered as it is alone: of the model
    that others are compared with (no `like`), rows of one length at once where that was seen to change no answer. like:
    answers of the model that this one was made of (`answer`). Raises ModelError when the model cannot run, or its
    outputs are none of the kinds of `reading`.
    """
    session = open_session(path, threads=working.threads)
    at_once = batch_size is None and like is None
    return answer(session, path, dataset, working, batch_size=batch_size or 1, at_once=at_once, like=like)


def answer(
    session: ort.InferenceSession,
    path: Path,
    dataset: Dataset,
    working: Working,
    *,
    batch_size: int = 1,
    at_once: bool = False,
    target: Target = CPU,
    like: Outputs | None = None,
) -> Outputs:
    """As `evaluate`, with a session that is open on `target` already.

    at_once: answer rows of one length together where two of them get the answers that each gets alone (`same_at_once`).
    like: answers of the model that this one was made of. What its inputs take, what its outputs are and the order of
    its classes hold for this one too, as far as the names are the same. Raises DataError for rows that the task does
    not read.
    """
    check_rows(dataset, dataset.task)
    taken = [value.name for value in session.get_inputs()]
    roles = like.roles if like is not None else {}
    if not roles or any(name not in roles for name in taken):
        roles = roles_for(path, dataset, working.tokenizer, session)
    roles = {name: roles[name] for name in taken if name in roles}
    reading = like.reading if like is not None else None
    if reading is None or not {*reading.outputs} <= {value.name for value in session.get_outputs()}:
        probe = replace(dataset.take(range(min(len(dataset), batch_size))), pool=())
        probe = probe.alone()
        first = next(iter(feed_batches(session, roles, probe, working, batch_size=batch_size)))
        check_scored_apart(session, path, roles, first.feeds)
        answers = run(session, path, first.feeds)
        reading = read_model(path, first.mask, answers, read_config(path), dataset.task, dataset.output)
        if reading.kind == "masked" and not (dataset.task or can_mask(dataset, working.tokenizer)):
            reading = replace(reading, kind="tokens")
    if reading.kind == "spans":
        check_rows(dataset, "answers")
    longest = min(working.max_length, fixed_shape(session)[1] or working.max_length)
    fed, owner = fed_rows(dataset, working.tokenizer, reading, longest)
    batches = feed_batches(session, roles, fed, working, batch_size=batch_size)
    if at_once and fixed_shape(session)[0] is None:
        alike = feed_batches(session, roles, fed, working, batch_size=OneLength(TOGETHER))
        batches = alike if same_at_once(session, alike) else batches
    config = read_config(like.path if like is not None else path)
    found = Collected(path, reading, like.values.shape[1] if like is not None else config.classes)
    for done, batch in enumerate(batches, start=1):
        found.add(batch, run(session, path, batch.feeds), fed, owner)
        if working.progress:
            working.progress(f"running {path.name} on {target.name}", done, len(batches))
    values, owners, words = found.values()
    if reading.kind == "score" and values.shape[1] == 2:
        values = relevance(values, config.labels)
    choices = dataset.task == CHOICE and dataset.feeds is None
    if choices:
        values = by_question(values, [len(row) - 1 for row in dataset.texts])
    outputs = Outputs(
        path=path,
        output=reading.output,
        kind="classes" if choices else "score" if reading.kind == "classes" and values.shape[1] == 1 else reading.kind,
        values=values,
        roles=roles,
        reading=reading,
        owner=owners if reading.kind in ("tokens", "spans", "masked") else None,
        words=words,
        answers=found.answers(fed, dataset) if reading.kind == "spans" else (),
        silent=reading.kind == "spans" and any(not right for right in dataset.gold or ()),
        names=() if choices else config.labels,
        notes=like.notes if like is not None else (*_left_open(reading, config), *_notes(batches, fed, longest)),
        similarity=config.similarity if reading.kind == "embedding" else "",
    )
    return replace(outputs, order=like.order) if like is not None else in_order_of(dataset, outputs)


def pairs_are_apart(path: Path, dataset: Dataset, working: Working) -> bool:
    """Whether the model at `path` answers an embedding, so that pairs go in as two texts; found once for each file."""
    stat = path.stat()
    key = (path.absolute(), stat.st_mtime_ns, stat.st_size, dataset.task, dataset.output)
    if key not in _APART:
        found = evaluate(path, dataset.probe(), working)
        _APART[key] = found.kind == "embedding"
    return _APART[key]


def _left_open(reading: Reading, config: ModelConfig) -> Iterator[str]:
    """What the outputs, or the folder around the model, say beyond what is judged."""
    if reading.others:
        yield f"answered, too, and not judged: {', '.join(reading.others)} (--output-name)"
    beyond = [kind for kind in config.modules if kind not in ("Transformer", "Pooling", "Normalize")]
    if reading.pooled and config.modules and not config.pooling:
        yield f"{MODULES} pools tokens in no way that is known here: the mean of their states is compared"
    if beyond and (reading.pooled or reading.kind != "embedding"):
        yield f"{MODULES} goes on with {', '.join(beyond)}, which the graph lacks: compared before it"
    if reading.kind == "embedding" and config.similarity not in ("", "cosine", "dot"):
        yield f"{SENTENCES} compares by {shown(config.similarity)}: cosines are used here"


def _notes(batches: Batches, fed: Dataset, max_length: int) -> tuple[str, ...]:
    cut, unread = batches.count_cut(), batches.count_unread()
    notes = (f"longer than {max_length} tokens and cut: {cut} of {plural(len(fed), 'row')}",) if cut else ()
    return (*notes, f"{plural(unread, 'word')} left out, of which the tokenizer keeps nothing") if unread else notes


def fed_rows(dataset: Dataset, tokenizer: Tokenizer | None, reading: Reading, max_length: int) -> tuple[Dataset, Array]:
    """The rows that are fed for `dataset`, and the owner of each, the row that its answer is for, [rows fed].

    A passage is fed in windows: two passages, of 3 windows and 1, have the owners 0, 0, 0, 1. A pair goes to a model of
    embeddings as two texts, all first ones before all second ones; each text is then an owner of its own. An ending of
    a multiple choice is fed with its context.
    """
    rows = np.arange(len(dataset))
    if dataset.form == "passages" and tokenizer is not None:
        windows = [tokenizer.encode_passage(pair[0], pair[1], max_length) for pair in dataset.texts]
        owner = np.repeat(rows, [len(each) for each in windows])
        encoded = tuple(row for each in windows for row in each)
        return replace(dataset.take(owner.tolist()), form="windows", encoded=encoded), owner
    if reading.kind == "masked" and tokenizer is not None:
        return masked_rows(dataset, tokenizer, max_length)
    if dataset.task == CHOICE and dataset.feeds is None:
        return dataset.endings(), np.repeat(rows, [len(row) - 1 for row in dataset.texts])
    if reading.kind == "embedding" and dataset.is_pairs:
        texts = dataset.apart()
        return texts, np.arange(len(texts))
    return dataset, rows


def can_mask(dataset: Dataset, tokenizer: Tokenizer | None) -> bool:
    """Whether words of the rows can be masked."""
    return dataset.feeds is None and dataset.form in ("texts", "words") and bool(tokenizer and tokenizer.mask_id)


def in_order_of(dataset: Dataset, outputs: Outputs) -> Outputs:
    """`outputs` with the classes in the order of the data set, where names say it. Raises as `class_order`."""
    if outputs.kind != "classes":
        return outputs
    if dataset.task == CHOICE:  # endings have places, not names
        return replace(outputs, order=tuple(range(outputs.values.shape[1])))
    return replace(outputs, order=class_order(read_config(outputs.path), dataset, outputs.values.shape[1]))


def feed_batches(
    session: ort.InferenceSession,
    roles: Roles,
    dataset: Dataset,
    working: Working,
    *,
    batch_size: int | OneLength,
    sort_by_length: bool = True,
) -> Batches:
    """The data set as feeds of this session, in the batch size and length that its graph fixes, if any."""
    batch, length = fixed_shape(session)
    return Batches(
        dataset,
        input_dtypes(session),
        roles,
        working,
        batch_size=batch or batch_size,
        fixed_length=length,
        sort_by_length=sort_by_length,
    )


def run(session: ort.InferenceSession, path: Path, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Every output by name; a model with a fixed batch is filled up with copies of the last row, which are cut off.

    An output without dimensions stays as it is: it is for the batch, not for a row. Raises ModelError when the model
    does not run on these shapes, BoundsError when that would pass a limit.
    """
    batch, _ = fixed_shape(session)
    rows = len(next(iter(feeds.values())))
    if batch is not None and rows < batch:
        feeds = {name: np.concatenate([feed, feed[-1:].repeat(batch - rows, axis=0)]) for name, feed in feeds.items()}
    try:
        outputs = answers(session, feeds)
    except BoundsError as error:
        raise BoundsError(f"{path}: {error}") from error
    except Exception as error:  # onnxruntime's exceptions share no base class
        shapes = ", ".join(f"{name} {list(feed.shape)}" for name, feed in feeds.items())
        raise ModelError(f"{path} does not run on {shapes}: {in_words(error)}") from error
    names = [output.name for output in session.get_outputs()]
    return {name: output[:rows] if output.ndim else output for name, output in zip(names, outputs, strict=True)}
