"""What could be done with a model on this machine, and what that would give, before any of it is done."""

import shlex
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from onnxslim_bert import __version__
from onnxslim_bert.calibration.load_tokenizer import DESCRIPTIONS
from onnxslim_bert.calibration.working import Working
from onnxslim_bert.errors import SlimError
from onnxslim_bert.graph.claims import scratch
from onnxslim_bert.graph.files import model_bytes
from onnxslim_bert.graph.model_folders import find_model, folder_with
from onnxslim_bert.inspection.advice import int8_savings
from onnxslim_bert.job.rows import canonical_form, fitting_length, fixed_shape
from onnxslim_bert.machine import Host, host, instruction_sets
from onnxslim_bert.model.dense import embeddings_of, encoder_of
from onnxslim_bert.model.model_config import read_config
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.proof.bench import interleave
from onnxslim_bert.proof.workload import Workload, same_feeds
from onnxslim_bert.recipes.int8 import EXACT
from onnxslim_bert.recipes.recipe import Recipe
from onnxslim_bert.recipes.run import run_recipe
from onnxslim_bert.rewriting.int8.layers import write_stand_in
from onnxslim_bert.targets.places import CPU_ONLY
from onnxslim_bert.targets.table import CPU, TARGETS
from onnxslim_bert.wording import plural

BATCH, LENGTH, ROUNDS = 1, 128, 7


@dataclass(frozen=True)
class Offer:
    """One thing that can be done. nbytes: of the file that it writes, computed from the weights; None when it is open.

    speedup: over the model as it is; None when it is open. known: how that is: timed here, an estimate, or why it is
    open. command: what to type.
    """

    what: str
    nbytes: int | None
    speedup: float | None
    known: Literal["timed", "estimate", "as asked", "timed when run"]
    command: str


@dataclass(frozen=True)
class Outlook:
    """What a model is and what can be done with it on this machine.

    path: its file. kind: what it is, in words. runs_on: the targets that execute here.
    batch, length: of the rows that were timed. ms: processor time that they take on one thread, the best of a few runs;
    None where they were not.
    basis: where the estimates come from. reason: why there are no offers; "" when there are.
    """

    path: Path
    nbytes: int
    host: Host
    instruction_sets: tuple[str, ...]
    runs_on: tuple[str, ...]
    kind: str = "a model"
    batch: int = BATCH
    length: int = LENGTH
    ms: float | None = None
    offers: tuple[Offer, ...] = ()
    basis: str = ""
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """One JSON-ready document."""
        return {"onnxslim_bert": __version__, **asdict(self), "path": str(self.path)}


def outlook(given: Path) -> Outlook:
    """Look at the model in `given`, a file or a folder; time it, its exact rewriting, and a stand-in of its int8 file.

    Takes seconds. Raises ModelError for what is no model.
    """
    path = find_model(given)
    model = Model.load(path)
    runs_on = tuple(name for name, target in TARGETS.items() if not target.absent())
    found = Outlook(path, model_bytes(path), host(), instruction_sets(), runs_on)
    try:
        canonical = canonical_form(model)
        found = replace(found, kind=_kind(path, canonical))
        layers, tables, saved = int8_savings(canonical)
    except SlimError as error:
        return replace(found, reason=str(error).removeprefix(f"{path}: "))
    batch, length = fixed_shape(model)[0] or BATCH, fitting_length(canonical, LENGTH)
    before, exact, narrow = _timed(path, model, Workload(batch, length))
    basis = (
        f"{plural(layers, 'dense layer')} and {plural(tables, 'table')} to int8, {narrow:.2f} ms in a stand-in with "
        f"made-up ranges, timed beside {before:.2f} ms of the model as it is; what keeps answers close (smoothing, "
        "channels left in float) may take a few percent more"
    )
    speeds = before / exact, before / narrow
    offers = tuple(_offers(given, found, found.nbytes - saved, speeds))
    return replace(found, batch=batch, length=length, ms=before, offers=offers, basis=basis)


def _kind(path: Path, model: Model) -> str:
    """Like "BertModel, 6 layers of width 384, 12 heads, 30522 words"."""
    encoder, words = encoder_of(model), embeddings_of(model).vocabulary
    parts = [read_config(path).architecture or "a model"]
    if encoder is not None:
        heads = sorted({layer.heads for layer in encoder.layers})
        parts.append(f"{plural(len(encoder.layers), 'layer')} of width {encoder.hidden}")
        parts.append(f"{heads[0]} heads" if len(heads) == 1 else f"{heads[0]} to {heads[-1]} heads")
    else:
        parts.append("no encoder whose parts are known")
    return ", ".join([*parts, *([f"{words} words"] if words else [])])


def _timed(path: Path, model: Model, workload: Workload) -> tuple[float, float, float]:
    """Milliseconds of the model as it is, after its exact rewriting, and of that with int8 layers of made-up ranges.

    The best of ROUNDS, in turns, on one thread. Of processor time, which other programs on a busy machine do not
    lengthen as they do that of the clock.
    """
    rewritten = model.clone()
    run_recipe(rewritten, Recipe.parse(EXACT))
    narrow = rewritten.clone()
    write_stand_in(narrow)
    run_recipe(narrow, Recipe.parse("skip-mask?"))
    with scratch() as folder:
        files = [path]
        for name, made in (("exact", rewritten), ("int8", narrow)):
            files.append(folder / f"{name}.onnx")
            made.save(files[-1])
        sessions = [(each, CPU_ONLY.open(CPU, each).session) for each in files]
        feeds = same_feeds(sessions, workload, None, Working(), ROUNDS)
        opened = [session for _, session in sessions]
        times = interleave(opened, feeds, rounds=ROUNDS, warmup=1, seed=0, clock=time.process_time)
    before, exact, quantized = times.min(axis=0)
    return float(before), float(exact), float(quantized)


def _offers(given: Path, found: Outlook, nbytes: int, speeds: tuple[float, float]) -> Iterator[Offer]:
    """nbytes: of the int8 file. speeds: of the exact rewriting, as timed, and of int8, by a stand-in."""
    path, name = found.path, shlex.quote(str(given))
    exact = f"{given}-exact" if given.is_dir() else path.with_suffix(".exact.onnx")
    readers = ("tokenizer.json", *DESCRIPTIONS)
    reads_texts = any((folder_with(path, *readers) / file).is_file() for file in readers)
    data = "--calib reviews" if reads_texts else "--mode dynamic"
    yield Offer("int8, proven on texts", nbytes, speeds[1], "estimate", f"onnxslim quantize {name} {data}")
    others = [target for target in found.runs_on if target != "cpu" and not TARGETS[target].emulated]
    if others and reads_texts:
        what = f"int8 for the fastest of cpu, {', '.join(others)}"
        yield Offer(what, nbytes, None, "timed when run", f"onnxslim quantize {name} --target auto {data}")
    command = f"onnxslim slim {name} -p @exact -o {shlex.quote(str(exact))}"
    yield Offer("the same answers", found.nbytes, speeds[0], "timed", command)
    if reads_texts:
        small = shlex.quote(str(path.with_suffix(".small.onnx")))
        command = f"onnxslim slim {name} --max-drop 1 {data} -o {small}"
        yield Offer("less structure, by a search", None, None, "as asked", command)
