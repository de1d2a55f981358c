"""One model taken through every cut, by onnxslim and by a peer: made, compared with the model, timed."""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from measured import ProgramError, measure
from peers import Job
from structure_cases import FUSED, Case, Cut, mixtures
from structure_table import Row

from onnxslim_bert.calibration.dataset import Dataset
from onnxslim_bert.calibration.working import Working
from onnxslim_bert.errors import DataError, ModelError, SlimError
from onnxslim_bert.graph.files import model_bytes
from onnxslim_bert.inspection.flops import flops_by_part
from onnxslim_bert.job.data import Sources
from onnxslim_bert.job.job import Job as OwnJob
from onnxslim_bert.job.run import run
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.proof.bench import Rounds, bench
from onnxslim_bert.proof.comparison import compare
from onnxslim_bert.proof.evaluation import evaluate
from onnxslim_bert.proof.outputs import Outputs
from onnxslim_bert.recipes.recipe import Recipe
from onnxslim_bert.recipes.run import run_recipe

BASE = "fp32"
JUDGED = 512  # rows, neither calibrated nor evaluated on, that choose among mixtures


@dataclass(frozen=True)
class Settings:
    """What all models share.

    data: a set with splits of its own; `rows` of it calibrate. tokenizer: a folder or tokenizer.json.
    max_length: tokens kept of a row. length: tokens at which files are timed, `rounds` times.
    """

    data: str
    rows: int
    seed: int
    tokenizer: Path
    max_length: int
    length: int
    rounds: int


class Workbench:
    """Makes and measures models of the one at `path`; their files go to `folder`. Raises SlimError."""

    def __init__(self, path: Path, folder: Path, settings: Settings) -> None:
        self.path, self.folder, self.settings = path, folder, settings
        self.sources = Sources(calibration=settings.data, rows=settings.rows, tokenizer=settings.tokenizer)
        calibration, evaluation = self.sources.load(settings.seed)
        if calibration is None or evaluation is None:
            raise DataError(f"{settings.data} has no evaluation rows of its own: needed a GLUE name or `reviews`")
        self.evaluation = evaluation
        self.spare = self.sources.spare(calibration, evaluation, JUDGED, settings.seed)
        self.tokenizer = self.sources.tokenizer_for(path, calibration)
        self.encoder = canonical(path).encoder
        self.attention, self.feed_forward = encoder_flops(path, settings.length)
        self.answers = self._answers(path, evaluation)
        self.made = 0

    def base(self) -> Row:
        """The model itself."""
        return self._measured(Row(BASE, file=self.path))

    def ours(self, case: Case) -> Row:
        """What onnxslim makes of a case: of several cuts, the one that answers most alike on spare rows."""
        cuts = [case.cut] if case.cut else mixtures(self.encoder, self.attention, self.feed_forward, case.flops)
        recipes = {cut: ",".join(filter(None, (cut.recipe(), case.then))) for cut in cuts}
        progress(f"onnxslim: {case.name}")
        started = time.process_time()
        try:
            files = {cut: self._slim(recipe) for cut, recipe in recipes.items()}
            best = self._closest(files)
            cpu_s = time.process_time() - started
            return self._measured(Row(case.name, case.asked, recipes[best], best, files[best], cpu_s=cpu_s))
        except SlimError as error:
            return Row(case.name, case.asked, failure=str(error))

    def recipe(self, recipe: str) -> Row:
        """What onnxslim makes by any recipe."""
        progress(f"onnxslim: {recipe}")
        started = time.process_time()
        try:
            file = self._slim(recipe)
            return self._measured(Row(recipe, recipe=recipe, file=file, cpu_s=time.process_time() - started))
        except SlimError as error:
            return Row(recipe, failure=str(error))

    def theirs(self, case: Case, cut: Cut) -> Row:
        """What the peer makes of a case, from the graph that `fuse` writes."""
        progress(f"peer: {case.name}")
        row = Row(case.name, case.asked, cut=cut)
        source, output = self.folder / "fused.onnx", self._new_file()
        try:
            if not source.exists():
                run(OwnJob(self.path, source, Recipe.parse(FUSED), report=False, timing=False))
            usage = measure("structure_peer", [json.dumps(asdict(self._job(source, output))), json.dumps(asdict(cut))])
            row = self._measured(replace(row, file=output, cpu_s=usage.cpu_s))
        except (ProgramError, SlimError) as error:
            return replace(row, failure=str(error))
        return replace(row, file=None, failure="does nothing to the encoder") if row.flops == 1 else row

    def timed(self, rows: Sequence[Row]) -> list[Row]:
        """The rows with their latencies, from one interleaved run of all files, the first of which is the base."""
        progress("timing")
        settings = self.settings
        files = [row.file for row in rows if row.file]
        lengths, rounds = [settings.length], Rounds(settings.rounds)
        found = bench(files, Working(seed=settings.seed), lengths=lengths, rounds=rounds, footprints=False).latencies
        by_file = {latency.model: latency for latency in found}
        return [replace(row, latency=by_file.get(str(row.file))) for row in rows]

    def _slim(self, recipe: str) -> Path:
        output, settings = self._new_file(), self.settings
        parsed = Recipe.parse(recipe)
        sources = replace(self.sources, own_split=False) if parsed.wants_calibration else Sources()
        working = Working(max_length=settings.max_length, seed=settings.seed)
        run(OwnJob(self.path, output, parsed, sources, working=working, report=False, timing=False))
        return output

    def _closest(self, files: dict[Cut, Path]) -> Cut:
        if len(files) == 1:
            return next(iter(files))
        exact = self._answers(self.path, self.spare)
        seen = {cut: compare(exact, self._answers(file, self.spare), self.spare) for cut, file in files.items()}
        return min(seen, key=lambda cut: seen[cut].fidelity.mean_difference)

    def _measured(self, row: Row) -> Row:
        assert row.file is not None
        comparison = compare(self.answers, self._answers(row.file, self.evaluation), self.evaluation)
        try:
            flops = sum(encoder_flops(row.file, self.settings.length)) / (self.attention + self.feed_forward)
        except ModelError:
            flops = None
        row = replace(row, nbytes=model_bytes(row.file), flops=flops, comparison=comparison)
        for limit in row.asked:
            progress(f"    {limit.verdict(row.figure(limit.figure))}: {row.figure(limit.figure)}")
        return row

    def _answers(self, path: Path, rows: Dataset) -> Outputs:
        return evaluate(path, rows, Working(self.settings.max_length, tokenizer=self.tokenizer))

    def _job(self, source: Path, output: Path) -> Job:
        settings, encoder = self.settings, self.encoder
        return Job(
            source=str(source),
            output=str(output),
            heads=encoder.layers[0].heads,
            hidden=encoder.hidden,
            data=settings.data,
            rows=settings.rows,
            seed=settings.seed,
            tokenizer=str(settings.tokenizer),
            max_length=settings.max_length,
        )

    def _new_file(self) -> Path:
        self.made += 1
        return self.folder / f"{self.made}.onnx"


def canonical(path: Path) -> Model:
    """The model at `path`, its encoder ready to be found. Raises ModelError."""
    model = Model.load(path)
    run_recipe(model, Recipe.parse("canonicalize?"))
    return model


def encoder_flops(path: Path, length: int) -> tuple[int, int]:
    """The FLOPs of attention and of the feed-forward layers for one sentence of so many tokens. Raises ModelError."""
    parts = flops_by_part(canonical(path), 1, length)
    return parts["attention"], parts["feed-forward"]


def progress(what: str) -> None:
    """A line on stderr."""
    print(what, file=sys.stderr, flush=True)
