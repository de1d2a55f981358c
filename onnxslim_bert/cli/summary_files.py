"""Files that a command writes for pipelines, if asked: its verdicts as JUnit XML, a summary as Markdown."""

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from onnxslim_bert.cli.options import refuse_ignored

WRITTEN = click.Path(dir_okay=False, path_type=Path)


@dataclass(frozen=True)
class SummaryFiles:
    """The files for pipelines that the user asked for, None for those not. force: replace a JUnit file that exists."""

    junit: Path | None
    markdown: Path | None
    force: bool

    def check(self, inputs: Iterable[Path] = ()) -> None:
        """Raise OutputError, before the work, for a file that cannot be written or that is one of `inputs`."""
        from onnxslim_bert.graph.files import check_output

        given = list(inputs)
        if self.junit:
            check_output(self.junit, overwrite=self.force, inputs=given)
        else:
            refuse_ignored(["force"], "without --junit")
        if self.markdown:
            check_output(self.markdown, overwrite=True, inputs=given)

    def write(self, suite: str, cases: Sequence[Any], fails: Callable[[Any], bool], summary: Callable[[], str]) -> None:
        """Write `cases` as JUnit's suite `suite`, and add the summary to the end of the Markdown file, if asked for.

        cases, fails: as `proof.junit.junit` takes them. summary: makes the text, when it is needed.
        """
        from onnxslim_bert.graph.files import write_atomically
        from onnxslim_bert.inspection.verify.markdown import append
        from onnxslim_bert.proof.junit import junit

        if self.junit:
            write_atomically(self.junit, [junit(suite, cases, fails)], overwrite=self.force)
        if self.markdown:
            append(self.markdown, summary())


def summarized(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command `--junit`, `--markdown` and `--force`, and hand them to it as `files`."""

    @click.option("--junit", type=WRITTEN, help="Write the verdicts as JUnit XML.")
    @click.option("--markdown", type=WRITTEN, help="Add a summary to the end of a Markdown file.")
    @click.option("--force", is_flag=True, help="Replace a JUnit file that exists.")
    @functools.wraps(command)
    def with_files(*, junit: Path | None, markdown: Path | None, force: bool, **given: Any) -> Any:
        return command(files=SummaryFiles(junit, markdown, force), **given)

    return with_files
