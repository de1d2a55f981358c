"""Where texts and their tokenizer come from, as a user names them."""

from dataclasses import dataclass, replace
from pathlib import Path

from onnxslim_bert.calibration.dataset import Dataset, Purpose, row_keys
from onnxslim_bert.calibration.load_tokenizer import tokenizer_of
from onnxslim_bert.calibration.loading import is_named, load_dataset
from onnxslim_bert.calibration.splitting import holdout, sample
from onnxslim_bert.calibration.tokenizer import Tokenizer
from onnxslim_bert.errors import DataError
from onnxslim_bert.wording import plural

FEW = 0.01  # share of the calibration rows that may be left out without asking
JUDGE, MOST_JUDGE = 0.5, 1000  # share of a file that is held back to judge on, and how many rows (or queries) at most
FEWEST_TO_JUDGE = 16  # distinct rows below which a file calibrates as a whole
HELD_BACK = "held back"  # the split of rows that were held back


@dataclass(frozen=True)
class Sources:
    """The data of a job, as the user names them: a named set (a GLUE name such as `sst2`, or `reviews`) or a file.

    calibration: what the model is fitted to. evaluation: what it is judged on; where none is named and `own_split` is
    true, the validation split of a named calibration set, or a part of a calibration file, which is held back from
    calibration (`hold_back`). corpus: more texts, all rows of a named set's training split or of a file; their tokens
    are counted, and `distill` learns from them.
    rows: number of calibration rows, drawn at random; None takes all. text_columns, label_column: columns of the
    files; of the named sets when there is no file.
    tokenizer: a folder or a tokenizer.json; by default the model's folder. inputs: names of model inputs by role, such
    as `ids=in0,mask=in1`, where the model does not tell. task: what the model is judged as, and output: by which of its
    outputs; "" to find them out.

    Example: calibration="sst2", rows=256: 256 rows of SST-2's training split to fit to, its validation split to judge.
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
    output: str = ""

    def read(self, model: Path, seed: int) -> "tuple[Data, Tokenizer | None]":
        """Load every data set that is named, and the tokenizer for its texts; None when all rows are ready inputs."""
        calibration, evaluation = self.load(seed) if self.own_split else self.load_named(seed)
        data = Data(calibration, evaluation, self.load_corpus(evaluation))
        return data, self.tokenizer_for(model, calibration, evaluation, data.corpus)

    def load(self, seed: int) -> tuple[Dataset | None, Dataset | None]:
        """The calibration and the evaluation rows, disjoint when both come from one named set."""
        spec = self.evaluation or (self.calibration if is_named(self.calibration) else None)
        if self.holds_back:
            return self._parted(seed)
        if self.label_column and (spec is None or (is_named(spec) and not self._all_named())):
            named = f"label column '{self.label_column}'"
            raise DataError(f"{named} does nothing: no file of evaluation rows; name one with --data")
        evaluation = self._read(spec, "evaluation", self.label_column) if spec else None
        if self.calibration is None:
            return None, evaluation
        calibration = self._read(self.calibration, "calibration", None)
        if evaluation is not None and is_named(self.calibration):
            calibration = calibration.without(evaluation)  # STS-B's own splits share rows
        calibration = sample(calibration, self.rows, seed)
        if evaluation is None or len(left := leave_out(calibration, evaluation)) == len(calibration):
            return calibration, evaluation
        said = (
            f"{plural(len(calibration) - len(left), 'calibration row')} of {len(calibration)} left out, as evaluated on"
        )
        return left, replace(evaluation, notes=(*evaluation.notes, said))

    @property
    def holds_back(self) -> bool:
        """Whether a part of the calibration file judges."""
        return self.own_split and not self.evaluation and bool(self.calibration) and not is_named(self.calibration)

    def spare(self, calibration: Dataset, evaluation: Dataset | None, rows: int, seed: int) -> Dataset:
        """At most `rows` other rows of the calibration set: none that is in `calibration` or `evaluation`.

        The calibration rows themselves when the set has no others.
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
        """All rows of the corpus but those in `evaluation`; None when no corpus is named."""
        if self.corpus is None:
            return None
        corpus = self._read(self.corpus, "calibration", None)
        return corpus if evaluation is None else corpus.without(evaluation)

    def tokenizer_for(self, model: Path, *datasets: Dataset | None) -> Tokenizer | None:
        """The tokenizer that texts need; None when all data are ready feeds."""
        texts = any(data is not None and data.feeds is None for data in datasets)
        if not texts and (self.tokenizer or self.text_columns):
            raise DataError("a tokenizer and text columns do nothing with ready inputs; leave them out")
        return tokenizer_of(model, self.tokenizer, self.inputs) if texts else None

    def _parted(self, seed: int) -> tuple[Dataset, Dataset | None]:
        """The calibration rows and the rows held back of one file; None, and all rows calibrate, where it has few.

        Labels that cannot be read are left out, and that is noted, unless their column was named.
        """
        assert self.calibration is not None
        calibration, unread = self._read(self.calibration, "calibration", self.label_column), ""
        try:
            evaluation = self._read(self.calibration, "evaluation", self.label_column)
        except DataError as error:
            evaluation, unread = calibration, str(error)
        if len(set(row_keys(calibration))) < FEWEST_TO_JUDGE or len(set(evaluation.units().tolist())) < 2:
            return sample(calibration, self.rows, seed), None
        held = hold_back(evaluation, seed)
        calibration = sample(calibration.without(held), self.rows, seed)
        said = (
            f"{held.name}: {plural(len(calibration), 'row')} calibrate, {len(held)} others judge, held back of the file"
        )
        notes = (said, *([f"its labels judge nothing: {unread}"] if unread else []), *held.notes)
        return calibration, replace(held, notes=notes)

    def _all_named(self) -> bool:
        return all(is_named(source) for source in (self.calibration, self.evaluation) if source)

    def _read(self, spec: str, purpose: Purpose, label_column: str | None) -> Dataset:
        if is_named(spec) and not self._all_named():
            return load_dataset(spec, purpose, task=self.task, output=self.output)
        columns = self.text_columns or None
        return load_dataset(
            spec, purpose, text_columns=columns, label_column=label_column, task=self.task, output=self.output
        )


def hold_back(dataset: Dataset, seed: int) -> Dataset:
    """The rows of a file that judge: JUDGE of its distinct texts, MOST_JUDGE at most; rows of one query stay together.

    Texts that differ in spaces or case only count as the same.
    """
    share = min(JUDGE, MOST_JUDGE / (int(dataset.units().max()) + 1))
    return replace(holdout(dataset, share, seed)[1], split=HELD_BACK)


def leave_out(calibration: Dataset, evaluation: Dataset) -> Dataset:
    """`calibration` without the rows that are evaluation rows, too, where these are few; more are left to be refused.

    Few are at most one in a hundred.
    """
    left = calibration.without(evaluation)
    return left if len(calibration) - len(left) <= FEW * len(calibration) else calibration


@dataclass(frozen=True)
class Data:
    """The rows of a job, loaded; None where there are none.

    calibration: rows that the model is fitted to. evaluation: rows that it is judged on. corpus: texts whose tokens are
    counted and that `distill` learns from.
    """

    calibration: Dataset | None = None
    evaluation: Dataset | None = None
    corpus: Dataset | None = None
