"""The options that set budgets for what a command writes or judges."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from onnxslim_bert.cli.options import Command, Finite, refuse_ignored, taken_together

if TYPE_CHECKING:
    from onnxslim_bert.job.seal import Gate

SIZES = ["max_size", "max_download"]
BUDGETS = ["max_drop", "min_agreement", "min_cosine", "min_speedup", *SIZES]
DOWNLOAD = "Bytes after gzip, which is what an app ships, like 12MB."
DROP = "Points that the task metric may drop."


def held_to(
    base: str = "MODEL",
    result: str = "what is written",
    *,
    least: float = -100,
    drop: str = DROP,
    download: str = DOWNLOAD,
) -> Callable[[Command], Command]:
    """Give a command all budgets and `--strict`; it takes them as one parameter `gate`.

    base, result: what the help calls the model that is compared with, and the one that is judged. least: of
    `--max-drop`; drop: its help; download: that of `--max-download`.
    """
    options = (
        click.option("--max-drop", type=Finite(least, 100), help=drop),
        click.option("--min-agreement", type=Finite(0, 100), help=f"Percent of rows that must keep {base}'s class."),
        click.option("--min-cosine", type=Finite(-1, 1), help=f"Mean cosine of embeddings to those of {base}."),
        click.option("--min-speedup", type=Finite(min=0), help=f"Latency of {base} over that of {result}."),
        click.option("--max-size", metavar="SIZE", help=f"Bytes of {result}, external data too, like 24MB or 23.5MiB."),
        click.option("--max-download", metavar="SIZE", help=download),
        click.option("--strict", is_flag=True, help="Fail, too, when the data cannot carry a verdict."),
    )

    return taken_together("gate", _gate, options, [*BUDGETS, "strict"])


def _gate(strict: bool, **given: Any) -> "Gate":
    """The gate that the options set together. Raises UsageError for --strict without a budget."""
    from onnxslim_bert.job.seal import Gate
    from onnxslim_bert.proof.gates import Budgets, parse_size

    sizes = {name: parse_size(given[name]) if given[name] else None for name in SIZES}
    budgets = Budgets(**given | sizes)
    if budgets == Budgets():
        refuse_ignored(["strict"], "without a budget")
    return Gate(budgets, strict)
