"""Hold a written model against its own record: its bytes, its source, its data, and the gate that it passed."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from onnxslim_bert.calibration.dataset import Dataset
from onnxslim_bert.calibration.load_tokenizer import tokenizer_of
from onnxslim_bert.calibration.tokenizer import Tokenizer
from onnxslim_bert.calibration.working import Working
from onnxslim_bert.errors import DataError, ModelError
from onnxslim_bert.graph.files import file_sha256, model_files
from onnxslim_bert.inspection.verify.claims import contradictions
from onnxslim_bert.inspection.verify.rows_again import Found, rows_again
from onnxslim_bert.inspection.verify.verification import ANSWERS, Check, Verification
from onnxslim_bert.job.measured import Answers, Measured, read, tokenizer_sha256
from onnxslim_bert.job.seal import verdicts_on
from onnxslim_bert.job.trailer import content_sha256
from onnxslim_bert.progress import Progress
from onnxslim_bert.proof.bench import Latency
from onnxslim_bert.proof.comparison import Comparison, compare
from onnxslim_bert.proof.evaluation import answer, evaluate
from onnxslim_bert.proof.outputs import Outputs
from onnxslim_bert.proof.time_against import time_against
from onnxslim_bert.proof.verdicts import judge
from onnxslim_bert.recipes.provenance import MEASURED, Provenance
from onnxslim_bert.targets.places import Places
from onnxslim_bert.targets.table import target_named
from onnxslim_bert.targets.target import Target


@dataclass(frozen=True)
class Now:
    """Where the things are now that a model was made from.

    base: the source; by default the file of the recorded name beside the model. tokenizer: the source's; by default in
    its folder. data: a named set or a file for "calibration", "evaluation" or "corpus", where it is not found by its
    recorded name. missing_data: rows that are not here make a check inconclusive instead of missed.
    inputs: names of model inputs by role, task: what the models are judged as, and output: by which of their outputs;
    "" for what was recorded when the model was made. places: where the model answers the rows once more, beside the
    provider that it is recorded on.
    """

    base: Path | None = None
    tokenizer: Path | None = None
    data: Mapping[str, str] = field(default_factory=dict)
    missing_data: bool = False
    inputs: str = ""
    task: str = ""
    output: str = ""
    places: tuple[Target, ...] = ()


@dataclass(frozen=True)
class _Readers:
    """The tokenizers of source and model; None where rows are ready inputs."""

    base: Tokenizer | None = None
    model: Tokenizer | None = None


def verify(model: Path, now: Now, *, strict: bool = False, progress: Progress | None = None) -> Verification:
    """Check the file at `model` against its record and, where everything is as recorded, run its gate again.

    Raises ModelError for a model without a record or a source that is not there, DataError for a record or a tokenizer
    that cannot be read, ProviderError where the provider that answered is missing here.
    """
    provenance, measured = read(model)
    if measured is None:
        raise ModelError(
            f"{model} holds no record of what was measured: another version or tool wrote it; make it again"
        )
    base = now.base or model.parent / Path(provenance.source).name
    if not base.is_file() or base.samefile(model):
        made = f"{model} was made from {provenance.source}"
        if now.base is not None:
            raise ModelError(f"{made}, and --base {base} is {'that model itself' if base.is_file() else 'no file'}")
        raise ModelError(f"{made}, which is not beside it: name it with --base")
    if measured.asked is not None:
        now = replace(now, inputs=now.inputs or measured.asked.inputs)
    _check_used(model, now, provenance, measured)
    found = rows_again(measured.asked, measured.seed, model.parent, now.data, now.task, now.output)
    rows, readers = found["evaluation"], _Readers()
    checks = [
        _same("content", content_sha256(model, MEASURED), measured.content_sha256),
        _same("source", file_sha256(*model_files(base)), provenance.source_sha256),
        *_rows(found, provenance, measured, now.missing_data),
    ]
    if measured.answers is not None and isinstance(rows, Dataset) and rows.feeds is None:
        readers = _readers(model, base, measured, now)
        checks += _tokenizers(readers, measured)
    result = Verification(model, base, provenance, measured, tuple(checks), None, (), (), strict)
    if any(check.outcome == "missed" for check in checks):
        return _with(result, Check(ANSWERS, "inconclusive", "not asked again: first, all else must be as recorded"))
    if measured.answers is None:
        return _held(result, "none were recorded, as it was made without evaluation rows", None, now.inputs, progress)
    if not isinstance(rows, Dataset):
        return _held(result, "not asked again, for want of the rows", None, now.inputs, progress)
    return _asked_again(result, measured.answers, rows, readers, now, progress)


def _asked_again(
    result: Verification,
    claimed: Answers,
    rows: Dataset,
    readers: _Readers,
    now: Now,
    progress: Progress | None,
) -> Verification:
    """`result` with checks on the answers and the verdicts: both models answer `rows` as when the model was made."""
    measured, model, on = result.measured, result.model, target_named(claimed.provider)
    how = Working(measured.max_length, measured.threads, measured.seed, readers.base, progress=progress)
    before = evaluate(result.base, rows, how)

    def answered(place: Target) -> Outputs:
        session = Places((place,), measured.allow_fallback).open(place, model, threads=measured.threads).session
        return answer(session, model, rows, replace(how, tokenizer=readers.model), target=place, like=before)

    after = answered(on)
    seen = compare(before, after, rows, seed=measured.seed)
    faults = "; ".join(contradictions(claimed, seen, before, after, rows.labels))
    result = _with(result, Check(ANSWERS, "missed" if faults else "met", faults or "as recorded"))
    for place in now.places:
        result = _with(result, _elsewhere(place.name, measured, rows, before, after, answered(place)))
    return _held(result, "", seen, now.inputs, progress, rows, readers.model)


def _elsewhere(place: str, measured: Measured, rows: Dataset, before: Outputs, after: Outputs, there: Outputs) -> Check:
    """Whether the answers `there` keep to the recorded budgets, too, and how far they are from those `after`."""
    budgets = replace(measured.budgets, min_speedup=None, max_size=None, max_download=None)
    verdicts = judge(compare(before, there, rows, seed=measured.seed), budgets)
    missed = [str(verdict) for verdict in verdicts if verdict.fails(measured.strict)]
    close = compare(after, there, rows, seed=measured.seed).fidelity
    same = f"agreement {close.agreement.value:.2f} %, " if close.agreement else ""
    note = f"{same}|difference| {close.mean_difference:.4f} from those on {measured.target}"
    return Check(f"{ANSWERS} on {place}", "missed" if missed else "met", "; ".join((note, *missed)))


def _held(
    result: Verification,
    unasked: str,
    seen: Comparison | None,
    inputs: str,
    progress: Progress | None,
    rows: Dataset | None = None,
    reader: Tokenizer | None = None,
) -> Verification:
    """`result` with the verdicts on the recorded budgets.

    rows: those that were answered; a model that takes no text, or lets texts leave early, is timed on them. reader: the
    model's tokenizer.
    seen: the comparison of the answers; None when they were not asked for again, and then `unasked` says why.
    """
    measured, budgets = result.measured, result.measured.budgets
    if seen is None:
        result = _with(result, Check(ANSWERS, "inconclusive", unasked))
        budgets = replace(budgets, max_drop=None, min_agreement=None, min_cosine=None)
    latencies: tuple[Latency, ...] = ()
    if budgets.min_speedup is not None:
        how = Working(measured.max_length, measured.threads, measured.seed, reader, inputs, progress=progress)
        latencies = time_against(result.base, result.model, target_named(measured.target), how, (rows,))
    verdicts = verdicts_on(seen, budgets, latencies, model_files(result.model))
    return replace(result, comparison=seen, latencies=latencies, verdicts=verdicts)


def _with(result: Verification, check: Check) -> Verification:
    return replace(result, checks=(*result.checks, check))


def _same(name: str, found: str, recorded: str) -> Check:
    if found == recorded:
        return Check(name, "met", f"sha256 {found[:12]}, as recorded")
    shown = 12 if found[:12] != recorded[:12] else None
    return Check(name, "missed", f"sha256 {found[:shown]}, and {recorded[:shown]} recorded")


def _rows(found: Mapping[str, Found], provenance: Provenance, measured: Measured, may_miss: bool) -> Iterator[Check]:
    """One check for each set of rows that was used."""
    for name, fingerprint in _recorded(provenance, measured).items():
        rows = found[name]
        if fingerprint and isinstance(rows, Dataset):
            yield _same(f"{name} rows", rows.fingerprint(), fingerprint)
        elif fingerprint:
            yield Check(f"{name} rows", "inconclusive" if may_miss else "missed", f"not here: {rows}")


def _recorded(provenance: Provenance, measured: Measured) -> dict[str, str]:
    """The sha256 of each set of rows, "" where none was used."""
    return {
        "calibration": provenance.calibration_sha256,
        "evaluation": measured.answers.fingerprint if measured.answers else "",
        "corpus": provenance.corpus_sha256,
    }


def _check_used(model: Path, now: Now, provenance: Provenance, measured: Measured) -> None:
    """Raise DataError for what is said of rows that the model was made without."""
    of_rows = {"--tokenizer": now.tokenizer, "--task": now.task, "--output-name": now.output, "--ep": now.places}
    of_sets = {"--calib": "calibration", "--corpus": "corpus", "--data": "evaluation"}
    given = {option: name for option, name in of_sets.items() if name in now.data}
    given |= {option: "evaluation" for option, value in of_rows.items() if value}
    recorded = _recorded(provenance, measured)
    for option, name in given.items():
        if not recorded[name]:
            raise DataError(f"{option} does nothing: {model.name} was made without {name} rows")


def _readers(model: Path, base: Path, measured: Measured, now: Now) -> _Readers:
    reader = tokenizer_of(base, now.tokenizer, now.inputs)
    shared = measured.own_tokenizer_sha256 == measured.tokenizer_sha256
    return _Readers(reader, reader if shared else tokenizer_of(model, inputs=now.inputs))


def _tokenizers(readers: _Readers, measured: Measured) -> Iterator[Check]:
    if measured.tokenizer_sha256:
        yield _same("tokenizer", tokenizer_sha256(readers.base), measured.tokenizer_sha256)
    if measured.own_tokenizer_sha256 != measured.tokenizer_sha256:
        yield _same("smaller tokenizer", tokenizer_sha256(readers.model), measured.own_tokenizer_sha256)
