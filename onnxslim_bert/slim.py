"""Run any recipe over a model file."""

from dataclasses import dataclass
from pathlib import Path

from onnxslim_bert.calibration.datasets import Dataset, check_disjoint
from onnxslim_bert.calibration.tokenizer import Tokenizer, load_tokenizer
from onnxslim_bert.calibration.vocabulary import token_growth
from onnxslim_bert.errors import DataError, PassError
from onnxslim_bert.model import Model
from onnxslim_bert.options import Options
from onnxslim_bert.output import check_output, staging, write_atomically
from onnxslim_bert.passes.fix_shapes import FixShapes
from onnxslim_bert.pipeline import Done, run_recipe
from onnxslim_bert.preparation import check_outputs, check_vocabulary, fit_to, make_trials
from onnxslim_bert.proof.comparison import Comparison, compare
from onnxslim_bert.proof.evaluation import evaluate
from onnxslim_bert.proof.footprint import model_bytes
from onnxslim_bert.provenance import Provenance, stamp
from onnxslim_bert.recipe import Recipe
from onnxslim_bert.rewrite_tokenizer import rewrite_tokenizer
from onnxslim_bert.sources import Sources
from onnxslim_bert.trials import Progress

TOKENIZER = "tokenizer.json"


@dataclass(frozen=True)
class Slimmed:
    """What a recipe did to a file. comparison: with the source on evaluation rows, None without any."""

    source: Path
    output: Path
    source_bytes: int
    output_bytes: int
    provenance: Provenance
    steps: tuple[Done, ...]
    comparison: Comparison | None


def slim(
    source: Path,
    output: Path,
    recipe: Recipe,
    sources: Sources,
    options: Options,
    *,
    rewrite: bool = False,
    allow_noop: bool = False,
    overwrite: bool = False,
    in_place: bool = False,
    progress: Progress | None = None,
) -> Slimmed:
    """Write what `recipe` makes of `source` to `output`.

    rewrite: take the id map of `trim-vocabulary` out again and write the smaller tokenizer.json beside the output.
    overwrite: an output that exists; in_place: the source, when it is the output. Raises SlimError for what the user
    can mend; then nothing is written.
    """
    check_outputs(source, [output], overwrite=overwrite, in_place=in_place)
    if sources.calibration is not None and not recipe.wants_calibration:
        raise DataError(f"--calib does nothing: no pass of {recipe} reads calibration texts")
    calibration, evaluation = sources.load_named(options.seed)
    corpus = sources.load_corpus(evaluation)
    tokenizer = sources.tokenizer_for(source, calibration, evaluation, corpus)
    if rewrite:
        check_output(output.parent / TOKENIZER, overwrite=overwrite, inputs=_files(tokenizer))
    model = Model.load(source)
    trials = None
    if calibration is not None or evaluation is not None:
        if calibration is not None and evaluation is not None:
            check_disjoint(calibration, evaluation)
        canonical = model.clone()
        run_recipe(canonical, Recipe.parse("canonicalize?"))
        check_vocabulary(canonical, tokenizer)
        options = fit_to(canonical, options)
        if calibration is not None:
            trials = make_trials(
                canonical,
                calibration,
                tokenizer,
                options,
                split=recipe.measures,
                corpus=corpus,
                shape=shape_of(recipe),
                progress=progress,
            )
    steps = run_recipe(model, recipe, trials, allow_noop=allow_noop)
    provenance = Provenance.of(source, str(recipe), calibration, corpus)
    stamp(model, provenance)
    with staging(output) as folder:
        candidate, smaller = folder / output.name, tokenizer
        if rewrite:
            smaller, step = _rewritten(model, tokenizer, calibration, folder)
            steps.append(step)
        model.save(candidate)
        comparison = None
        if evaluation is not None:
            before, after = (
                evaluate(
                    path, evaluation, by, max_length=options.max_length, threads=options.threads, progress=progress
                )
                for path, by in ((source, tokenizer), (candidate, smaller))
            )
            comparison = compare(before, after, evaluation, seed=options.seed)
        sizes = model_bytes(source), model_bytes(candidate)
        if rewrite:
            (folder / TOKENIZER).replace(output.parent / TOKENIZER)
        candidate.replace(output)
    return Slimmed(source, output, *sizes, provenance, tuple(steps), comparison)


def shape_of(recipe: Recipe) -> tuple[int | None, int | None]:
    """The batch and the length that a pass of `recipe` fixes; None where none does."""
    fixing = [step.action for step in recipe.steps if isinstance(step.action, FixShapes)]
    return (fixing[-1].batch, fixing[-1].seq) if fixing else (None, None)


def _rewritten(
    model: Model, tokenizer: Tokenizer | None, texts: Dataset | None, folder: Path
) -> tuple[Tokenizer, Done]:
    """The smaller tokenizer, written to `folder`, and what it does to the length of texts."""
    if tokenizer is None or tokenizer.file is None or texts is None:
        raise PassError("--rewrite-tokenizer needs the tokenizer.json that trim-vocabulary was run with")
    text = rewrite_tokenizer(model, tokenizer.file.read_text(encoding="utf-8"))
    write_atomically(folder / TOKENIZER, [text.encode()], overwrite=True)
    smaller = load_tokenizer(folder / TOKENIZER)
    growth = token_growth(texts, tokenizer, smaller)
    note = (
        f"{smaller.vocab_size} tokens, from {tokenizer.vocab_size}; calibration texts are {growth:.1%} longer in tokens"
    )
    return smaller, Done("rewrite-tokenizer", tokenizer.vocab_size - smaller.vocab_size, note, 0.0, {"growth": growth})


def _files(tokenizer: Tokenizer | None) -> list[Path]:
    return [tokenizer.file] if tokenizer is not None and tokenizer.file is not None else []
