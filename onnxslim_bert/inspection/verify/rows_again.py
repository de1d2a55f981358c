"""The rows that a model was calibrated and evaluated on, found again by what was recorded of them."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from onnxslim_bert.calibration.datasets import Dataset, is_named
from onnxslim_bert.errors import DataError
from onnxslim_bert.job.data import Sources
from onnxslim_bert.job.measured import Asked

NOTHING = Asked("", "", "", None, (), "")
Found = Dataset | DataError  # the rows, or why they are not here


def rows_again(
    asked: Asked | None, seed: int, folder: Path, given: Mapping[str, str], task: str = ""
) -> dict[str, Found]:
    """The calibration, evaluation and corpus rows that were asked for, as far as they can be read.

    given: where they are now, by those names; else a file is looked for here and in `folder`, the model's. task: what
    the model is judged as, where that is not found.
    """
    asked = asked or NOTHING
    specs = {
        name: given.get(name) or place(spec, folder)
        for name, spec in (
            ("calibration", asked.calibration),
            ("evaluation", asked.evaluation),
            ("corpus", asked.corpus),
        )
    }
    sources = Sources(
        calibration=specs["calibration"] or None,
        evaluation=specs["evaluation"] or None,
        rows=asked.rows,
        text_columns=asked.text_columns,
        label_column=asked.label_column or None,
        corpus=specs["corpus"] or None,
        task=task,
    )
    # read apart, so that one that is missing does not hide the other
    evaluation = _read("evaluation", specs, lambda: evaluation_alone(sources).load(seed)[1])
    rows = evaluation if isinstance(evaluation, Dataset) else None
    missing = bool(specs["evaluation"]) and rows is None  # and its rows are to be left out of the corpus
    return {
        "calibration": _read("calibration", specs, lambda: calibration_alone(sources).load(seed)[0]),
        "evaluation": evaluation,
        "corpus": evaluation if missing else _read("corpus", specs, lambda: sources.load_corpus(rows)),
    }


def place(name: str, folder: Path) -> str:
    """A file of that name, here or in `folder`, no other; the name itself for a set, or where neither holds one."""
    if is_named(name):
        return name
    here, beside = Path(Path(name).name), folder / Path(name).name
    return str(beside if beside.is_file() and not here.is_file() else here) if name else ""


def evaluation_alone(sources: Sources) -> Sources:
    """The same evaluation rows, asked for without calibration rows; columns are those of files where there are any."""
    columns = sources.text_columns
    if is_named(sources.evaluation) and sources.calibration and not is_named(sources.calibration):
        columns = ()
    return replace(sources, calibration=None, corpus=None, text_columns=columns)


def calibration_alone(sources: Sources) -> Sources:
    """The same calibration rows: of a file, without the evaluation rows, which are left out of named sets only."""
    return sources if is_named(sources.calibration) else replace(sources, evaluation=None, label_column=None)


def _read(name: str, specs: Mapping[str, str], load: Callable[[], Dataset | None]) -> Found:
    if not specs[name]:
        return DataError(f"which {name} rows was not recorded")
    try:
        rows = load()
    except DataError as error:
        return error
    assert rows is not None
    return rows
