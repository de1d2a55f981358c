"""The options that set budgets for what a command writes."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from onnxslim_bert.cli.options import Finite, refuse_ignored

if TYPE_CHECKING:
    from onnxslim_bert.job.seal import Gate

BUDGETS = ["max_drop", "min_agreement", "min_cosine", "min_speedup", "max_size", "max_download"]


def held_to(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command `strict` and all budgets but `max_drop`, which it defines itself."""
    options = (
        click.option("--min-agreement", type=Finite(0, 100), help="Percent of rows that must keep MODEL's class."),
        click.option("--min-cosine", type=Finite(-1, 1), help="Mean cosine of embeddings to those of MODEL."),
        click.option("--min-speedup", type=Finite(min=0), help="Latency of MODEL over that of what is written."),
        click.option("--max-size", metavar="SIZE", help="Bytes that may be written, like 24MB or 23.5MiB."),
        click.option("--max-download", metavar="SIZE", help="Bytes after gzip, which is what an app ships, like 12MB."),
        click.option("--strict", is_flag=True, help="Fail, too, when the data cannot carry a verdict."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def gate_of(
    max_drop: float | None,
    min_agreement: float | None,
    min_cosine: float | None,
    min_speedup: float | None,
    max_size: str | None,
    max_download: str | None,
    strict: bool,
) -> "Gate":
    """The gate that the options set together. Raises UsageError for --strict without a budget."""
    from onnxslim_bert.job.seal import Gate
    from onnxslim_bert.proof.gates import Budgets, parse_size

    size, download = (parse_size(text) if text else None for text in (max_size, max_download))
    budgets = Budgets(max_drop, min_agreement, min_speedup, size, min_cosine, download)
    if budgets == Budgets():
        refuse_ignored(["strict"], "without a budget")
    return Gate(budgets, strict)
