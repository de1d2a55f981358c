"""What a report can do without, where a run is large."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from onnxslim_bert.errors import DataError
from onnxslim_bert.zoo.records import Row, Run

NAMED = 3  # nodes that stay of each placement


def only(run: Run, patterns: Sequence[str]) -> Run:
    """The part of a run whose models match one of `patterns`, as of a shell. Raises DataError when none does."""
    kept = {source.name for source in run.sources if any(fnmatchcase(source.name, pattern) for pattern in patterns)}
    if not kept:
        raise DataError(
            f"no model is named {' or '.join(patterns)}: the run has {_some([s.name for s in run.sources])}"
        )
    rows = tuple(row for row in run.rows if row.model in kept)
    return replace(run, sources=tuple(source for source in run.sources if source.name in kept), rows=rows)


def reductions(run: Run) -> Iterator[tuple[str, Run]]:
    """The run as it is, then with less and less of it, each with a sentence that says what is left out."""
    yield "", run
    rows = tuple(_shorn(row, sentences=1) for row in run.rows)
    yield "To stay small, this report has one sentence of each job, and no list of nodes.", replace(run, rows=rows)
    rows = tuple(_shorn(row, sentences=0) for row in run.rows)
    yield "To stay small, this report has no sentences, passes and nodes of each job.", replace(run, rows=rows)


def _shorn(row: Row, sentences: int) -> Row:
    """The job with at most `sentences` of its rows of largest difference; for 0, without its passes, too."""
    if row.result is None:
        return row
    placement = row.result.placement and replace(row.result.placement, left=row.result.placement.left[:NAMED])
    steps = row.result.steps if sentences else ()
    return replace(
        row, result=replace(row.result, placement=placement, worst=row.result.worst[:sentences], steps=steps)
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
