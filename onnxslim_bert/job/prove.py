"""The third step of a job: run what was made, see where its nodes run, compare it with the source, and time it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.batches import Batches
from onnxslim_bert.calibration.dataset import Dataset
from onnxslim_bert.calibration.feeding import roles_for
from onnxslim_bert.calibration.tokenizer import Tokenizer, TokenRow
from onnxslim_bert.calibration.working import Working
from onnxslim_bert.errors import DataError, ModelError, PassError
from onnxslim_bert.graph.apart import answers_apart
from onnxslim_bert.graph.signature import declared_axes, fed_inputs
from onnxslim_bert.graph.wire import read_skeleton
from onnxslim_bert.job.deployment import Deployment
from onnxslim_bert.job.load import Loaded
from onnxslim_bert.job.make import Made
from onnxslim_bert.model.role_names import parse_named
from onnxslim_bert.proof.bench import Latency
from onnxslim_bert.proof.comparison import Comparison, compare
from onnxslim_bert.proof.evaluate_once import evaluate_once
from onnxslim_bert.proof.evaluation import answer
from onnxslim_bert.proof.same_as_cpu import check_same_as_cpu
from onnxslim_bert.proof.time_against import time_against
from onnxslim_bert.proof.workload import Workload
from onnxslim_bert.proof.worst import Disagreement, worst_rows
from onnxslim_bert.targets.int8_check import check_weights_stay_int8
from onnxslim_bert.targets.placement import Placement
from onnxslim_bert.targets.places import Places
from onnxslim_bert.targets.prediction.predict import PREDICTED, predict
from onnxslim_bert.targets.table import CPU, target_named
from onnxslim_bert.targets.target import Target
from onnxslim_bert.wording import plural

TRIED = 8  # tokens in the row that every file is run on, where the graph fixes no length
COMPARED = 8  # rows on which a target is compared with the CPU, where it fixes no batch


@dataclass(frozen=True)
class Proof:
    """The measured evidence for a made model; the fields are those of the same names in `Report`."""

    placement: Placement | None
    unproven: str
    proven_on: str
    comparison: Comparison | None
    worst: tuple[Disagreement, ...]
    latencies: tuple[Latency, ...]


def prove(loaded: Loaded, made: Made) -> Proof:
    """Open and run every file, see where its nodes run, compare its answers with the source's, and time it.

    Raises ModelError for a file that does not run, PassError for one that answers NaN or whose int8 weights become
    float again, ProviderError for one that its target leaves to the CPU or computes otherwise.
    """
    job, data = loaded.job, loaded.data
    working = replace(loaded.working, max_length=made.max_length)
    for file in made.files:
        check_answers(file, loaded)
    if not job.deployment.is_lowered:
        check_weights_stay_int8(made.file, loaded.job.source)
    placement, unproven = place(made.file, job.deployment)
    check_target(made.file, job.deployment, working)
    target = target_named(job.deployment.target)
    places = Places((target,), job.deployment.allow_fallback, opened={})
    comparison: Comparison | None = None
    worst: tuple[Disagreement, ...] = ()
    if data.evaluation is not None:
        comparison, worst = _compared(loaded, made, data.evaluation, working, places)
        check_finite(comparison)
    given = (data.evaluation, data.calibration)
    read = replace(working, tokenizer=made.tokenizer or working.tokenizer)  # the smaller one's ids are the source's too
    timed = time_against(job.source, made.file, target, read, given, places) if job.times else ()
    latencies = (*timed[:1], *(replace(result, model=str(job.output)) for result in timed[1:]))
    return Proof(placement, unproven, proven_on(job.deployment).name, comparison, worst, latencies)


def check_answers(file: Path, loaded: Loaded) -> None:
    """Open the file on the CPU and run it on one row, in a process of its own.

    Raises ModelError when it does not run, PassError when it answers NaN where the source does not.
    """
    try:
        finite = answers_apart(file, one_row(file, loaded))
    except ModelError as error:
        raise ModelError(str(error).replace(str(file), str(loaded.job.output))) from error
    if not finite and answers_apart(loaded.job.source, one_row(loaded.job.source, loaded)):
        raise PassError("the result answers NaN or infinity where the source does not; nothing was written")


def one_row(file: Path, loaded: Loaded) -> dict[str, Array]:
    """Inputs of the model in `file` for one row of TRIED tokens, or for the batch and length that its graph fixes.

    Each input gets what the source's input of that name takes (ids, mask, types). Where inputs cannot be made from
    text, they are the first rows that the job was given ready; empty without any.
    """
    graph = read_skeleton(file)[0].graph
    batch, length = declared_axes(graph)
    rows, tokens = batch or 1, length or TRIED

    def encode(texts: Sequence[tuple[str, ...]], max_length: int) -> list[TokenRow]:
        return [TokenRow([1] * tokens, [0] * tokens) for _ in texts]

    kinds = {value.name: value.type.tensor_type.elem_type for value in fed_inputs(graph)}
    dtypes = {name: onnx.helper.tensor_dtype_to_np_dtype(kind) for name, kind in kinds.items()}
    dataset = Dataset("one row", "", (("",),) * rows, None, None)
    try:
        reader = Tokenizer(2, 0, tokens, encode, inputs=parse_named(loaded.working.inputs))
        roles = roles_for(loaded.job.source, dataset, reader, threads=loaded.working.threads)
        taken = {name: roles[name] for name in dtypes}
        working = Working(max_length=tokens, tokenizer=reader)
        batches = Batches(dataset, dtypes, taken, working, batch_size=rows, fixed_length=length)
        return dict(next(iter(batches)).feeds)
    except (DataError, KeyError):
        ready = next((x for x in (loaded.data.calibration, loaded.data.evaluation) if x is not None and x.feeds), None)
        feeds = ready.take(range(rows)).feeds if ready is not None and len(ready) >= rows else None
        return {name: values for name, values in (feeds or {}).items() if name in dtypes}


def place(path: Path, deployment: Deployment) -> tuple[Placement | None, str]:
    """Where the nodes of the file at `path` run on the target, and what that does not prove ("" when it is proven).

    The target's provider opens the file where it is installed. CoreML and NNAPI are predicted where they are not. For
    any other target that is not here the placement is None, with the reason. It is None for the CPU, which runs all.
    Raises ProviderError when nodes are left to the CPU and the deployment does not allow that.
    """
    target = target_named(deployment.target)
    if target is CPU:
        return None, ""
    reason = target.absent()
    if not reason:
        return Places((target,), deployment.allow_fallback).open(target, path).placement, ""
    if target.name in PREDICTED:
        return predict(path, target.name), "predicted by the provider's rules; nothing was run on it"
    return None, reason


def proven_on(deployment: Deployment) -> Target:
    """The target on whose answers a model is judged: its own, where that runs here without emulation; else the CPU."""
    target = target_named(deployment.target)
    return CPU if target.emulated or target.absent() else target


def check_target(path: Path, deployment: Deployment, working: Working) -> None:
    """Raise ProviderError when the target, where it executes, answers otherwise than the CPU from the same file."""
    target = proven_on(deployment)
    if target is not CPU:
        batch, length = declared_axes(read_skeleton(path)[0].graph)
        rows = Workload(batch or COMPARED, length or TRIED)
        check_same_as_cpu(path, target, Places((target,), deployment.allow_fallback), rows, working)


def check_finite(comparison: Comparison) -> None:
    """Raise PassError when the candidate answers NaN or infinity."""
    if comparison.broken:
        raise PassError(
            f"the result answers NaN or infinity on {comparison.broken} of {plural(comparison.rows, 'row')}; "
            "nothing was written"
        )


def _compared(
    loaded: Loaded, made: Made, evaluation: Dataset, working: Working, places: Places
) -> tuple[Comparison, tuple[Disagreement, ...]]:
    """Compare the result, run on `proven_on`, with the source on the CPU; also the rows of the largest difference."""
    job, target = loaded.job, proven_on(loaded.job.deployment)
    before = evaluate_once(job.source, evaluation, working)
    session = places.open(target, made.file, threads=working.threads).session
    own = replace(working, tokenizer=made.tokenizer or working.tokenizer)
    after = answer(session, made.file, evaluation, own, target=target, like=before)
    return compare(before, after, evaluation, seed=working.seed), worst_rows(before, after, evaluation, job.worst)
