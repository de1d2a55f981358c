"""The verdicts on a candidate: what was measured of it, held to the budgets that are set."""

from onnxslim_bert.errors import DataError
from onnxslim_bert.proof.comparison import Comparison
from onnxslim_bert.proof.gates import Budgets, GateName, Verdict, at_least, at_most
from onnxslim_bert.proof.intervals import Interval
from onnxslim_bert.wording import plural

EMULATED = "an emulator ran it, whose times say nothing of a device"


def judge(
    comparison: Comparison | None,
    budgets: Budgets,
    *,
    speedup: Interval | None = None,
    nbytes: int | None = None,
    download: int | None = None,
    emulated: bool = False,
) -> tuple[Verdict, ...]:
    """The verdicts on a candidate: one on every budget that is set and measured, and first one on finite outputs.

    comparison: None where there were no evaluation rows; then nothing is said of outputs.
    speedup, nbytes, download (bytes after gzip): None where they were not measured.
    emulated: a speed-up cannot be measured, so a budget for it is inconclusive.
    Raises DataError for a budget that the rows cannot judge.
    """
    verdicts = [_finite(comparison)] if comparison else []
    if comparison is None and budgets.judges_rows:
        raise DataError(f"a budget for {budgets.on_rows} needs evaluation rows: name some with --data")
    if comparison and budgets.max_drop is not None:
        if not comparison.scores:
            raise DataError(f"a budget for the drop needs logits and labels: {comparison.output} is an embedding")
        verdicts.append(at_most("max-drop", comparison.scores[0].drop, budgets.max_drop, " points"))
    if comparison and budgets.min_agreement is not None:
        if comparison.fidelity.agreement is None:
            better = "; --min-cosine holds an embedding" if comparison.kind == "embedding" else ""
            raise DataError(f"a budget for the agreement needs classes: {comparison.output} has no argmax{better}")
        verdicts.append(at_least("min-agreement", comparison.fidelity.agreement, budgets.min_agreement, " %"))
    if comparison and budgets.min_cosine is not None:
        if comparison.fidelity.mean_cosine is None:
            raise DataError(f"a budget for the cosine needs embeddings: {comparison.output} is {comparison.taken}")
        verdicts.append(at_least("min-cosine", comparison.fidelity.mean_cosine, budgets.min_cosine, ""))
    if budgets.min_speedup is not None and speedup is not None:
        verdicts.append(at_least("min-speedup", speedup, budgets.min_speedup, "x"))
    elif budgets.min_speedup is not None and emulated:
        verdicts.append(Verdict("min-speedup", "inconclusive", EMULATED))
    if budgets.max_size is not None and nbytes is not None:
        verdicts.append(_bytes("max-size", nbytes, budgets.max_size))
    if budgets.max_download is not None and download is not None:
        verdicts.append(_bytes("max-download", download, budgets.max_download))
    return tuple(verdicts)


def _bytes(gate: GateName, nbytes: int, most: int) -> Verdict:
    size = nbytes / 1e6
    return at_most(gate, Interval(size, size, size), most / 1e6, " MB")


def _finite(comparison: Comparison) -> Verdict:
    if comparison.broken:
        return Verdict(
            "finite", "missed", f"NaN or infinite outputs on {comparison.broken} of {plural(comparison.rows, 'row')}"
        )
    return Verdict("finite", "met", f"finite outputs on all {plural(comparison.rows, 'row')}")
