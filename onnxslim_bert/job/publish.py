"""The last step of a job: hold the result to its budgets, write its record into it, and move it to its place."""

import os
from dataclasses import replace
from pathlib import Path

from onnxslim_bert.errors import OutputError
from onnxslim_bert.graph.files import check_output, model_bytes, model_files
from onnxslim_bert.graph.naming import give_names
from onnxslim_bert.graph.wire import data_file
from onnxslim_bert.job.data import Sources
from onnxslim_bert.job.lengths import check_place, renew_manifest
from onnxslim_bert.job.load import Loaded, check_unchanged
from onnxslim_bert.job.make import Made
from onnxslim_bert.job.measured import Answers, Asked, Measured, tokenizer_sha256
from onnxslim_bert.job.prove import Proof
from onnxslim_bert.job.report import Report
from onnxslim_bert.job.rewrite_tokenizer import TOKENIZER
from onnxslim_bert.job.seal import seal
from onnxslim_bert.job.search.frontier import SearchResult
from onnxslim_bert.proof.documents import report_path, write_report
from onnxslim_bert.proof.gates import Budgets, Verdict


def publish(loaded: Loaded, made: Made, proof: Proof, found: SearchResult | None) -> Report:
    """Move the result to its place and write the report beside it; when a budget is missed, write neither.

    found: what a search measured on its way to the recipe; None without a search. Raises ModelError when the source
    file changed since it was read.
    """
    job, working = loaded.job, loaded.working
    verdicts = _sealed(loaded, made, proof)
    check_unchanged(loaded)
    report = Report(
        source=job.source,
        output=job.output,
        source_bytes=model_bytes(job.source),
        output_bytes=nbytes(made.written),
        provenance=made.provenance,
        steps=made.steps,
        methods=made.methods,
        saturating=made.saturating,
        placement=proof.placement,
        unproven=proof.unproven,
        proven_on=proof.proven_on,
        comparison=proof.comparison,
        worst=proof.worst,
        latencies=proof.latencies,
        buckets=made.lengths,
        deployment=job.deployment,
        max_length=made.max_length,
        threads=working.threads,
        seed=working.seed,
        gate=job.gate,
        verdicts=verdicts,
        published=not job.gate.fails(verdicts),
        found=found and replace(found, chosen=replace(found.chosen, file=job.output)),
        weights_file=data_file(job.output).name if data_file(made.written).exists() else "",
        unjudged=loaded.unjudged,
    )
    if report.published:
        _name(report, made, with_report=job.report, overwrite=job.overwrite or job.in_place)
    return report


def nbytes(written: Path) -> int:
    """Bytes of a model file with its external data, or of all files in a folder."""
    return sum(path.stat().st_size for path in written.iterdir()) if written.is_dir() else model_bytes(written)


def _sealed(loaded: Loaded, made: Made, proof: Proof) -> tuple[Verdict, ...]:
    """The verdicts on the result's budgets; the record of what was measured is written into every file of it.

    Of several lengths only the longest is judged: the records of the others hold no answers and no budgets.
    """
    job, working = loaded.job, loaded.working
    answers = None if proof.comparison is None else Answers.of(proof.comparison, proof.proven_on)
    measured = Measured(
        schema=Measured.SCHEMA,
        content_sha256="",
        tokenizer_sha256=tokenizer_sha256(working.tokenizer),
        own_tokenizer_sha256=tokenizer_sha256(made.tokenizer or working.tokenizer),
        target=job.deployment.target,
        allow_fallback=job.deployment.allow_fallback,
        max_length=made.max_length,
        threads=working.threads,
        seed=working.seed,
        asked=Asked.of(job.data, evaluated=answers is not None) if isinstance(job.data, Sources) else None,
        budgets=job.gate.budgets,
        strict=job.gate.strict,
        outcomes={},
        answers=answers,
    )
    unjudged = replace(measured, answers=None, budgets=Budgets(), strict=False)
    for file in made.files[:-1]:
        seal(file, unjudged)
    own = model_files(made.file)
    beside = [path for path in made.written.iterdir() if path not in own] if made.written.is_dir() else []
    verdicts = seal(made.file, measured, proof.comparison, proof.latencies, beside)
    if made.lengths:
        renew_manifest(made.written)
    return verdicts


def _name(report: Report, made: Made, *, with_report: bool, overwrite: bool) -> None:
    """Move the model, its report and its tokenizer from the temporary folder to their places, all or none."""
    folder = made.written.parent
    names: list[tuple[Path, Path]] = []
    if with_report:
        path = report_path(made.written)
        write_report(path, report)
        names.append((path, report_path(report.output)))
    if made.tokenizer is not None:
        names.append((folder / TOKENIZER, report.output.parent / TOKENIZER))
    if report.weights_file:
        _check_weights_file(report, overwrite)
        names.append((data_file(made.written), data_file(report.output)))
    if made.lengths:
        check_place(report.output, overwrite)  # again: files may have come into it meanwhile
    names.append((made.written, report.output))
    give_names(names, overwrite=overwrite, sources=model_files(report.source))


def _check_weights_file(report: Report, overwrite: bool) -> None:
    """Raise OutputError when the weights cannot lie in a file beside the output."""
    if report.output.is_symlink():
        real = os.path.realpath(report.output)
        raise OutputError(
            f"{report.output} is a link, and the weights need a file beside it; give {real} as the output"
        )
    check_output(data_file(report.output), overwrite=overwrite, inputs=model_files(report.source))
