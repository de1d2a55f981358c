"""The tiles at the top of the report: the numbers to see first."""

import statistics
from collections.abc import Sequence

from onnxslim_bert.zoo.page import wording
from onnxslim_bert.zoo.page.trades import Trade, missed, speedup
from onnxslim_bert.zoo.records import Result, Row


def tiles(rows: Sequence[Row], models: Sequence[Trade]) -> list[tuple[str, str, str]]:
    """Each number with its name and whether it is good, bad or neither."""
    done, late = sum(row.status == "done" for row in rows), sum(bool(missed(row)) for row in rows)
    gains = [speedup(trade.fastest) or 0.0 for trade in models if trade.fastest]
    saved = [trade.source.nbytes / result.output_bytes for trade in models if (result := _result(trade.smallest))]
    found = [
        (f"{done} of {len(rows)}", "jobs done", "good" if done == len(rows) else "bad"),
        (str(late), "jobs over budget", "bad" if late else "good"),
    ]
    if gains:
        found.append(
            (wording.ratio(statistics.median(gains)), f"faster, nothing measurable lost ({_median(gains)})", "")
        )
    if saved:
        found.append((wording.ratio(statistics.median(saved)), f"smaller, within budgets ({_median(saved)})", ""))
    return found


def _median(values: Sequence[float]) -> str:
    return "1 model" if len(values) == 1 else f"median of {len(values)} models"


def _result(row: Row | None) -> Result | None:
    return row.result if row and row.result and row.result.output_bytes else None
