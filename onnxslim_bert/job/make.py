"""The second step of a job: run its recipe on the model, and write the result to a temporary folder."""

import gc
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from onnxslim_bert.calibration.load_tokenizer import load_tokenizer
from onnxslim_bert.calibration.observers import Want
from onnxslim_bert.calibration.tokenizer import Tokenizer
from onnxslim_bert.calibration.vocabulary import token_growth
from onnxslim_bert.errors import PassError
from onnxslim_bert.graph.files import write_atomically
from onnxslim_bert.job.lengths import write_buckets
from onnxslim_bert.job.load import Loaded
from onnxslim_bert.job.rewrite_tokenizer import TOKENIZER, rewrite_tokenizer
from onnxslim_bert.job.rows import fixed_shape, make_step_damage, make_trials
from onnxslim_bert.job.saturating import Saturating, saturation_of
from onnxslim_bert.job.step_files import StepFiles
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.shapes import renew_shapes
from onnxslim_bert.recipes.int8 import unsmoothed
from onnxslim_bert.recipes.promises import Promises
from onnxslim_bert.recipes.provenance import Provenance, stamp
from onnxslim_bert.recipes.recipe import Recipe
from onnxslim_bert.recipes.run import Done, record, run_step
from onnxslim_bert.rewriting.contract import Change
from onnxslim_bert.rewriting.int8.run_time import RunTime


@dataclass(frozen=True)
class Made:
    """What the recipe of a job made, as it lies in a temporary folder.

    file: the model; with several lengths, that of the longest. written: the same file, or the folder of all lengths.
    provenance: what the file says of how it was made. steps: what each pass did. max_length: tokens in a row, no more
    than the graph now fixes. saturating: what int8 sums may lose on some CPUs. tokenizer: the model's own, where it is
    not the source's. lengths: the file name for each number of tokens, when there are several.
    """

    file: Path
    written: Path
    provenance: Provenance
    steps: tuple[Done, ...]
    max_length: int
    saturating: Saturating | None = None
    tokenizer: Tokenizer | None = None
    lengths: dict[int, str] = field(default_factory=dict)

    @property
    def methods(self) -> dict[str, float]:
        """The measured error of each range method, by its name; empty where no pass compared them."""
        return {name: error for step in self.steps for name, error in step.details.get("methods", {}).items()}

    @property
    def files(self) -> tuple[Path, ...]:
        """Every model file; `file` is the last."""
        others = {self.written / name for name in self.lengths.values()} - {self.file}
        return (*sorted(others), self.file)


def make(loaded: Loaded, folder: Path) -> Made:
    """Run the job's recipe, once for each length, and write the result to `folder` under the output's name.

    Raises PassError for a pass that cannot do what it was asked, or that changes nothing and is not marked with `?`.
    """
    written, seqs = folder / loaded.job.output.name, loaded.job.deployment.seq
    if len(seqs) < 2:
        model, made = walk_best(loaded, loaded.job.recipe)
        made = replace(made, file=written, written=written)
        if loaded.job.rewrite_tokenizer:
            made = _rewritten(loaded, model, made, folder)
        model.save(written)
        del model
        gc.collect()  # a graph's nodes and tensors refer to each other
        return made
    done: list[Made] = []

    def models() -> Iterator[tuple[int, Model]]:
        for length in sorted(seqs):
            model, made = walk_best(loaded, loaded.job.recipe.at_length(length))
            done.append(made)
            yield length, model
            del model
            gc.collect()

    lengths = write_buckets(written, models()).lengths
    return replace(done[-1], file=written / lengths[max(lengths)], written=written, lengths=lengths)


def walk_best(loaded: Loaded, recipe: Recipe) -> tuple[Model, Made]:
    """What `walk` returns; where a step has measured that another in its place is better (`instead`), with that one.

    The step that was taken then says what was measured.
    """
    model, made = walk(loaded, recipe)
    found = next((step for step in made.steps if step.details.get("instead")), None)
    if found is None:
        return model, made
    last = found.details["instead"]
    model, made = walk(loaded, Recipe.parse(unsmoothed(str(recipe), last)))
    measured = RunTime(**found.details["ranges"])
    off = f"mean error {100 * measured.dynamic:.2g} %, with calibrated ones {100 * measured.fixed:.2g} %"
    note = (
        f"; ranges are found at run time ({off}): calibrated ones were not surely as near for every kind of hard row, "
        "short, behind padding and others, in the mean and at the worst"
    )
    steps = [
        replace(step, note=step.note + note, details=found.details, seconds=step.seconds + found.seconds)
        if step.step.startswith("quantize-dynamic")
        else step
        for step in made.steps
    ]
    return model, replace(made, steps=tuple(steps))


def walk(loaded: Loaded, recipe: Recipe) -> tuple[Model, Made]:
    """The model after every pass of `recipe`, and what they did; nothing is written, so `Made.file` is empty."""
    job, data, canonical = loaded.job, loaded.data, loaded.canonical
    model, shape = loaded.model.clone(), recipe.shape
    trials, step_damage, saturating = None, None, None
    if canonical is not None and data.calibration is not None:
        trials = make_trials(canonical, data, loaded.working, split=recipe.measures, shape=shape)
    if canonical is not None and job.damages:
        step_damage = make_step_damage(loaded.model, canonical, data, loaded.working, shape)
    known: dict[Want, Any] = {}
    promises = Promises(threads=loaded.working.threads)
    steps: list[Done] = []
    kept = None if job.steps is None else StepFiles(job.steps)
    for i, step in enumerate(recipe.steps, start=1):
        steps.append(
            run_step(
                model,
                step,
                trials,
                known,
                recipe.steps[i:],
                allow_noop=job.allow_noop,
                step_damage=step_damage,
                promises=promises,
            )
        )
        if kept is not None and steps[-1].count:
            kept.keep(model, i, step.action.name)
        if saturating is None and trials is not None and not job.deployment.is_lowered:
            saturating = saturation_of(model, trials)
    promises.settle()
    if job.deployment.is_lowered:
        renew_shapes(model)
    provenance = Provenance.of(job.source, loaded.sha256, _ran(steps), data.calibration, data.corpus, _trained(steps))
    stamp(model, provenance)
    max_length = min(loaded.working.max_length, fixed_shape(model)[1] or loaded.working.max_length)
    return model, Made(Path(), Path(), provenance, tuple(steps), max_length, saturating)


def _ran(steps: list[Done]) -> str:
    """The recipe as it ran: choices that passes made by measuring, such as a range method, stand in it as options."""
    return ",".join(done.step for done in steps)


def _trained(steps: list[Done]) -> str:
    """What the trainings among `steps` came to; empty without any."""
    told = [step.details for step in steps if step.details.get("kept") and "torch" in step.details]
    return "; ".join(
        f"{one['steps']} steps, loss {one['loss']:.3g}, held-back error {one['errors'][1]:.3g}, torch {one['torch']}"
        for one in told
    )


def _rewritten(loaded: Loaded, model: Model, made: Made, folder: Path) -> Made:
    """`made` with the smaller tokenizer of a trimmed vocabulary, which is written to `folder`, as one step more.

    The step notes how much longer the calibration texts are in tokens.
    """
    reader, texts = loaded.working.tokenizer, loaded.data.calibration
    if reader is None or reader.file is None or texts is None:
        raise PassError("--rewrite-tokenizer needs the tokenizer.json that trim-vocabulary was run with")
    started = time.process_time()
    text = rewrite_tokenizer(model, reader.file.read_text(encoding="utf-8"))
    write_atomically(folder / TOKENIZER, [text.encode()], overwrite=True)
    smaller = load_tokenizer(folder / TOKENIZER)
    growth = token_growth(texts, reader, smaller)
    note = f"{smaller.vocab_size} tokens, from {reader.vocab_size}; calibration texts are {growth:.1%} longer in tokens"
    change = Change(reader.vocab_size - smaller.vocab_size, note, {"growth": growth})
    step = record("rewrite-tokenizer", change, started, model)
    return replace(made, tokenizer=smaller, steps=(*made.steps, step))
