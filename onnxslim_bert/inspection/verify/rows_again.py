"""Read again the rows that a model was calibrated and evaluated on, by the names that were recorded of them."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from onnxslim_bert.calibration.dataset import Dataset
from onnxslim_bert.calibration.loading import is_named
from onnxslim_bert.errors import DataError
from onnxslim_bert.job.data import Sources, leave_out
from onnxslim_bert.job.measured import Asked

NOTHING = Asked("", "", "", None, (), "")
Found = Dataset | DataError  # the rows, or why they are not here


def rows_again(
    asked: Asked | None, seed: int, folder: Path, given: Mapping[str, str], task: str = "", output: str = ""
) -> dict[str, Found]:
    """Read the rows that a model was made with: {"calibration", "evaluation", "corpus": the rows, or why not}.

    asked: the recorded names of the data. seed: that they were sampled with. given: where data sets are now, by these
    three names; any other file is looked for in the current folder and in `folder`, where the model is. task: what the
    model is judged as, output: by which of its outputs; "" for what was recorded.
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
        evaluation=None if asked.held_back else specs["evaluation"] or None,
        rows=asked.rows,
        text_columns=asked.text_columns,
        label_column=asked.label_column or None,
        corpus=specs["corpus"] or None,
        task=task or asked.task,
        output=output or asked.output,
        own_split=asked.held_back,
    )
    if asked.held_back:
        one = given.get("calibration") or given.get("evaluation") or specs["calibration"]
        return _parted(replace(sources, calibration=one), specs, seed)
    # each is read on its own, so that a missing one does not keep the others from being read
    evaluation = _read("evaluation", specs, lambda: evaluation_alone(sources).load(seed)[1])
    rows = evaluation if isinstance(evaluation, Dataset) else None
    missing = bool(specs["evaluation"]) and rows is None  # then the corpus, which leaves them out, is unknown, too
    return {
        "calibration": _read("calibration", specs, lambda: _calibration(sources, seed, rows)),
        "evaluation": evaluation,
        "corpus": evaluation if missing else _read("corpus", specs, lambda: sources.load_corpus(rows)),
    }


def place(name: str, folder: Path) -> str:
    """Where the data set `name` is: a named set is itself; a file is in the current folder, or else in `folder`.

    Only the file's own name counts, not the folder it has in front. "" for "".
    """
    if is_named(name):
        return name
    here, beside = Path(Path(name).name), folder / Path(name).name
    return str(beside if beside.is_file() and not here.is_file() else here) if name else ""


def evaluation_alone(sources: Sources) -> Sources:
    """`sources` without calibration rows and corpus, such that the evaluation rows stay the same.

    `text_columns` are those of the files among the data. So they go when the calibration rows were the only file.
    """
    columns = sources.text_columns
    if is_named(sources.evaluation) and sources.calibration and not is_named(sources.calibration):
        columns = ()
    return replace(sources, calibration=None, corpus=None, text_columns=columns)


def calibration_alone(sources: Sources) -> Sources:
    """`sources` for reading the same calibration rows alone.

    From a named set the evaluation rows were left out, so they are needed again; with a file they play no part.
    """
    return sources if is_named(sources.calibration) else replace(sources, evaluation=None, label_column=None)


def _calibration(sources: Sources, seed: int, evaluation: Dataset | None) -> Dataset | None:
    """The calibration rows, without the few that were evaluated on, too, where those are here."""
    rows = calibration_alone(sources).load(seed)[0]
    return rows if rows is None or evaluation is None else leave_out(rows, evaluation)


def _parted(sources: Sources, specs: Mapping[str, str], seed: int) -> dict[str, Found]:
    """The rows where one file gave those that calibrated and those that judged."""
    try:
        calibration, evaluation = sources.load(seed)
    except DataError as error:
        return dict.fromkeys(("calibration", "evaluation", "corpus"), error)
    assert calibration is not None
    return {
        "calibration": calibration,
        "evaluation": evaluation or DataError(f"{calibration.name} has too few rows to hold some back"),
        "corpus": _read("corpus", specs, lambda: sources.load_corpus(evaluation)),
    }


def _read(name: str, specs: Mapping[str, str], load: Callable[[], Dataset | None]) -> Found:
    if not specs[name]:
        return DataError(f"which {name} rows was not recorded")
    try:
        rows = load()
    except DataError as error:
        return error
    assert rows is not None
    return rows
