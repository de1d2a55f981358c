"""Which data a job reads, and whether they are there."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from onnxslim_bert.calibration.dataset import Purpose
from onnxslim_bert.calibration.loading import is_named
from onnxslim_bert.errors import DataError, shown
from onnxslim_bert.job.data import Sources
from onnxslim_bert.zoo.planning.data_checks import check_there, check_tokenizer, is_labelled, is_text, place_of
from onnxslim_bert.zoo.planning.find_models import is_url
from onnxslim_bert.zoo.planning.keys import Layer
from onnxslim_bert.zoo.planning.mistakes import Mistakes
from onnxslim_bert.zoo.planning.recipe_entries import without_dashes
from onnxslim_bert.zoo.planning.settings import Settings
from onnxslim_bert.zoo.planning.toml_lines import Place

ROWS = 256  # as on the command line


class JobData:
    """Finds the data sets of jobs and notes what is wrong with them; relative paths are relative to `folder`."""

    def __init__(self, folder: Path, mistakes: Mistakes) -> None:
        self._folder, self._mistakes = folder, mistakes
        self._tried = cache(_tried)  # jobs share their data

    def sources(self, settings: Settings, own: Layer, calibrates: bool, counts_tokens: bool) -> Sources:
        """The data sets of a job, from the keys calib, data and corpus of its settings.

        A job whose recipe needs no calibration reads no calibration rows. Where no evaluation set is named, it is
        judged on the validation split of a named calibration set all the same, or on a part of a calibration file.
        Example: calib = "sst2" and a recipe of dynamic int8: no calibration rows, and SST-2's validation split to
        judge.

        own: the settings of the recipe itself. calibrates: whether the recipe reads calibration texts; counts_tokens:
        whether it may read a corpus, too.
        """
        calib = settings.look("calib")
        calibration = self._named(settings, "calib", "calibration") if calibrates else None
        evaluation = self._named(settings, "data", "evaluation")
        if evaluation is None and is_named(calib):
            evaluation = calib if "calib" in own and not calibrates else self._named(settings, "calib", "evaluation")
        corpus = self._named(settings, "corpus", "calibration") if counts_tokens and calibration else None
        if calibration and calibration == evaluation and not is_named(calibration):
            self._mistakes.add(settings.place("data"), "data is the file of calib: evaluate on rows of their own")
        texts = any(map(is_text, (calibration, evaluation, corpus)))
        tokenizer = settings.take("tokenizer") if texts else None
        # a label column is one of the evaluation file, or of the named sets when there is no file
        judge = evaluation or calibration  # of a calibration file alone a part is held back to judge
        labels = judge is not None and (not is_named(judge) or not calibration or is_named(calibration))
        return Sources(
            calibration=calibration,
            evaluation=evaluation,
            rows=settings.take("rows", ROWS) if calibration else None,
            tokenizer=self._folder / tokenizer if tokenizer else None,
            text_columns=settings.take("text-columns", ()) if texts else (),
            label_column=settings.take("label-column") if labels else None,
            corpus=corpus,
            inputs=settings.take("inputs", "") if texts else "",
            task=settings.take("task", ""),
            output=settings.take("output-name", ""),
        )

    def check_tokenizer(self, settings: Settings, sources: Sources, source: str, where: Place) -> None:
        """Note texts without a tokenizer as a mistake; beside a model at a URL, it is looked for when the job runs."""
        texts = any(map(is_text, (sources.calibration, sources.evaluation, sources.corpus)))
        if texts and (sources.tokenizer or not is_url(source)):
            _, trouble = self._tried(check_tokenizer, sources.tokenizer or Path(source).parent)
            if trouble:
                self._mistakes.add(settings.place("tokenizer", where), trouble)

    def check_evaluation(self, settings: Settings, sources: Sources) -> bool:
        """Note what is wrong in a file of evaluation rows; returns False where it can be read and has no labels."""
        spec = sources.evaluation or (sources.calibration if sources.holds_back else None)
        if spec is None or self._tried(check_there, spec, "evaluation")[1]:
            return True
        labelled, trouble = self._tried(is_labelled, spec, sources.text_columns, sources.label_column, sources.task)
        if trouble and sources.holds_back:  # labels that cannot be read judge nothing, and the job says so
            return False
        if trouble:
            self._mistakes.add(settings.place("data"), trouble)
        return bool(labelled) or bool(trouble)

    def _named(self, settings: Settings, key: str, purpose: Purpose) -> str | None:
        """The data set that `key` names; noted when it is not there."""
        given = settings.take(key)
        if given is None:
            return None
        spec = place_of(given, self._folder)
        _, trouble = self._tried(check_there, spec, purpose)
        if trouble:
            self._mistakes.add(settings.place(key), f"{key} = {shown(given)}: {trouble}")
        return spec


def _tried(check: Callable[..., Any], *arguments: Any) -> tuple[Any, str]:
    """What a check returns, and "", or None and the mistake that it raised."""
    try:
        return check(*arguments), ""
    except DataError as error:
        return None, without_dashes(error)
    except OSError as error:
        return None, f"cannot be looked at ({error.strerror})"
