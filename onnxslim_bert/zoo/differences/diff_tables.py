"""The jobs that changed between two runs, as rows of a table: one for a terminal and for Markdown."""

from collections.abc import Iterator

from onnxslim_bert.inspection.verify.markdown import heading
from onnxslim_bert.proof.markdown import table
from onnxslim_bert.wording import si
from onnxslim_bert.zoo.differences.changes import Aspect, Difference
from onnxslim_bert.zoo.differences.diff import Diff, JobDiff

HEADERS = ("job", "", "drop, points", "agreement", "speed-up", "nodes", "size", "notes")


def rows(found: Diff) -> Iterator[tuple[str, ...]]:
    """A row for every job that is not the same, and for those with something to note."""
    for job in found.jobs:
        notes = "; ".join(_notes(job))
        if job.state != "same" or notes:
            cells = (_cell(job, aspect) for aspect in ("metric", "agreement", "speed-up", "nodes", "size"))
            yield (job.name, job.state, *cells, notes)


def diff_summary(found: Diff, strict: bool = False) -> str:
    """Markdown: the count, the jobs that changed, and what fails."""
    failed = [finding.verdict for finding in found.findings if finding.verdict.fails(strict)]
    text = heading(f"{found.old} to {found.new}: {found.summary}")
    changed = list(rows(found))
    text += table(HEADERS, changed) if changed else "Nothing changed.\n"
    if failed:
        text += "\n" + table(["failed", "why"], [[verdict.name, verdict.note] for verdict in failed])
    return text


def _cell(job: JobDiff, aspect: Aspect) -> str:
    change = next((change for change in job.changes if change.aspect == aspect), None)
    if change is None:
        return "-"
    values = [_value(aspect, value) for value in (change.old, change.new)]
    if values[0] == values[1]:
        return values[0]
    return " -> ".join(values) + (f", {change.way}" if change.way != "same" else "")


def _value(aspect: Aspect, value: float) -> str:
    if aspect == "size":
        return si(value, "B")
    return f"{value:.2f}" + {"metric": "", "speed-up": "x"}.get(aspect, " %")


def _notes(job: JobDiff) -> Iterator[str]:
    yield from job.notes
    yield from (_pieces(change) for change in job.changes if change.aspect == "pieces" and change.way != "same")
    yield from dict.fromkeys(change.open for change in job.changes if change.open)
    unsure = dict.fromkeys(found.verdict.gate for found in job.findings if found.verdict.outcome == "inconclusive")
    if unsure:
        yield f"{', '.join(unsure)} inconclusive"


def _pieces(change: Difference) -> str:
    return f"{change.old:.0f} -> {change.new:.0f} pieces, {change.way}"
