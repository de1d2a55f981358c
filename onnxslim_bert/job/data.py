"""Where texts and their tokenizer come from, as a user names them."""

from dataclasses import dataclass
from pathlib import Path

from onnxslim_bert.calibration.datasets import Dataset, Purpose, is_named, load_dataset, sample
from onnxslim_bert.calibration.tokenizer import Tokenizer, load_tokenizer
from onnxslim_bert.errors import DataError


@dataclass(frozen=True)
class Sources:
    """What to calibrate and evaluate on.

    calibration: a GLUE name, `reviews` or a file. evaluation: the same, and by default the calibration set's own
    validation split. rows: of calibration, sampled. tokenizer: a folder or a tokenizer.json, by default the model's
    folder. text_columns, label_column: of the files; of the named sets when there is no file. corpus: texts whose
    tokens count and that `distill` learns from, all rows of a GLUE name's training split or of a file. own_split: where
    no evaluation is named, a GLUE name's validation split is evaluated on. inputs: of the model by role, those that the
    user names, like `ids=in0,mask=in1`. task: what the model is judged as, found where it is empty.
    """

    calibration: str | None = None
    evaluation: str | None = None
    rows: int | None = None
    tokenizer: Path | None = None
    text_columns: tuple[str, ...] = ()
    label_column: str | None = None
    corpus: str | None = None
    own_split: bool = True
    inputs: str = ""
    task: str = ""

    def read(self, model: Path, seed: int) -> "tuple[Data, Tokenizer | None]":
        """Every row that they name, and the tokenizer that reads texts; None when all rows are ready inputs."""
        calibration, evaluation = self.load(seed) if self.own_split else self.load_named(seed)
        data = Data(calibration, evaluation, self.load_corpus(evaluation))
        return data, self.tokenizer_for(model, calibration, evaluation, data.corpus)

    def load(self, seed: int) -> tuple[Dataset | None, Dataset | None]:
        """The calibration and the evaluation rows, disjoint when both come from one named set."""
        spec = self.evaluation or (self.calibration if is_named(self.calibration) else None)
        if self.label_column and (spec is None or (is_named(spec) and not self._all_named())):
            named = f"label column '{self.label_column}'"
            raise DataError(f"{named} does nothing: no file of evaluation rows; name one with --data")
        evaluation = self._read(spec, "evaluation", self.label_column) if spec else None
        if self.calibration is None:
            return None, evaluation
        calibration = self._read(self.calibration, "calibration", None)
        if evaluation is not None and is_named(self.calibration):
            calibration = calibration.without(evaluation)  # STS-B's own splits share rows
        return sample(calibration, self.rows, seed), evaluation

    def spare(self, calibration: Dataset, evaluation: Dataset | None, rows: int, seed: int) -> Dataset:
        """`rows` of the calibration set's source that are neither in `calibration` nor evaluated on.

        The calibration rows themselves when there are no others.
        """
        assert self.calibration is not None
        rest = self._read(self.calibration, "calibration", None).without(calibration)
        rest = rest if evaluation is None else rest.without(evaluation)
        return sample(rest, rows, seed) if len(rest) else calibration

    def load_named(self, seed: int) -> tuple[Dataset | None, Dataset | None]:
        """The calibration rows, and evaluation rows only where the user named some."""
        calibration, evaluation = self.load(seed)
        return calibration, evaluation if self.evaluation is not None else None

    def load_corpus(self, evaluation: Dataset | None) -> Dataset | None:
        """The texts of the corpus, every row without those evaluated on; None when none are named."""
        if self.corpus is None:
            return None
        corpus = self._read(self.corpus, "calibration", None)
        return corpus if evaluation is None else corpus.without(evaluation)

    def tokenizer_for(self, model: Path, *datasets: Dataset | None) -> Tokenizer | None:
        """The tokenizer that texts need; None when all data are ready feeds."""
        texts = any(data is not None and data.feeds is None for data in datasets)
        if not texts and (self.tokenizer or self.text_columns):
            raise DataError("a tokenizer and text columns do nothing with ready inputs; leave them out")
        return load_tokenizer(self.tokenizer or model.parent, self.inputs) if texts else None

    def _all_named(self) -> bool:
        return all(is_named(source) for source in (self.calibration, self.evaluation) if source)

    def _read(self, spec: str, purpose: Purpose, label_column: str | None) -> Dataset:
        if is_named(spec) and not self._all_named():
            return load_dataset(spec, purpose, task=self.task)
        columns = self.text_columns or None
        return load_dataset(spec, purpose, text_columns=columns, label_column=label_column, task=self.task)


@dataclass(frozen=True)
class Data:
    """Rows for each purpose; None for none.

    calibration: that the model may be fitted to. evaluation: that it is judged on. corpus: texts whose tokens count
    and that `distill` learns from.
    """

    calibration: Dataset | None = None
    evaluation: Dataset | None = None
    corpus: Dataset | None = None
