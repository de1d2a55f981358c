"""Try every verb on a folder of encoder families, and print what holds.

    python tools/family_trial.py FAMILIES [--only REGEX] [--verb NAME]... [--json FILE]

FAMILIES holds folders with model.onnx and, beside it, tokenizer.json, or inputs.npz of ready rows for a model that
takes no text (tools/make_families.py writes some). For each model and verb: written, refused (with the reason) or
failed; whether ONNX Runtime opens the file; and the mean and the least cosine and the largest difference to the
source's answers on rows of many lengths, padded left, right, with holes and not. The verb "peer" is
onnxruntime.quantization.quantize_dynamic. At the end stands on how many models the default (`default`) has a mean
cosine that is lower than that of ranges found at run time, ours or the peer's, by more than NOISE. Exits 1 when a verb
ended in anything but a file or a one-line reason, when a file does not open, or when an exact pass is off.
"""

import argparse
import json
import re
import sys
import tempfile
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnxruntime.quantization import QuantType, quantize_dynamic
from tokenizers import Tokenizer

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.working import Working
from onnxslim_bert.errors import SlimError, one_line
from onnxslim_bert.inspection.inspection import inspect
from onnxslim_bert.job.data import Sources
from onnxslim_bert.job.job import Job
from onnxslim_bert.job.main_recipe import Quantization, main_recipe
from onnxslim_bert.job.run import run
from onnxslim_bert.recipes.recipe import Recipe

QUANTIZE = {
    "default": Quantization(),
    "static": Quantization(mode="static"),
    "default-qdq": Quantization(format="qdq"),
    "default-batch": Quantization(batch=True),
    "dynamic": Quantization(mode="dynamic"),
    "dynamic-qdq": Quantization(mode="dynamic", format="qdq"),
    "weight-only": Quantization(mode="weight-only"),
    "fp16": Quantization(mode="fp16"),
}
EXACT = {
    "exact": "canonicalize?,fuse?,first-token?,unpad?,skip-mask?",
    "exact-standard": "canonicalize?,fuse{style=standard}?,first-token?,mask-bias?,split-sums?",
    "store-once": "canonicalize?,share-weights?",
}
STRUCTURE = {
    "prune-heads": "canonicalize?,fuse?,prune-heads{keep=0.5,even=true,refit=false}",
    "prune-ffn": "canonicalize?,fuse?,prune-ffn{keep=0.5,even=true,refit=false}",
    "prune-ffn-refit": "canonicalize?,fuse?,prune-ffn{keep=0.75}",
    "share-ffn": "canonicalize?,fuse?,share-weights{groups=1,roles=ffn}",
    "share-all": "canonicalize?,fuse?,share-weights{groups=1}",
    "drop-layers": "canonicalize?,fuse?,drop-layers{layers=1}",
    "factorize": "canonicalize?,fuse?,factorize-embedding",
    "trim": "canonicalize?,trim-vocabulary",
    "low-rank": "canonicalize?,low-rank",
}
RUN_TIME = ("dynamic", "peer")
VERBS = ("inspect", *EXACT, *QUANTIZE, "peer", *STRUCTURE)
NOISE = 1e-4  # of a mean cosine
EXACT_WITHIN = 1e-4
LENGTHS = (1, 2, 7, 16, 63, 128)
LONGEST = 512
READY = 2  # ready rows at once
WORDS = 24  # of a calibration text, at most


@dataclass(frozen=True)
class Row:
    """What one verb did to one model. state: written, refused, failed or unopened."""

    model: str
    verb: str
    state: str
    cosine: float | None = None
    mean: float | None = None
    difference: float | None = None
    note: str = ""

    def __str__(self) -> str:
        numbers = (
            "" if self.cosine is None else f"cos {self.mean:.5f}, least {self.cosine:.5f}  diff {self.difference:.1e}"
        )
        return f"{self.model:<32}{self.verb:<17}{self.state:<10}{numbers:<43}{self.note}"


class SourceAnswers:
    """The source's answers on rows of many lengths; a candidate is held against them."""

    def __init__(self, source: Path, vocabulary: int, ready: dict[str, Array]) -> None:
        self.source = _session(source)
        self.vocabulary = vocabulary
        if ready:
            first = next(iter(ready.values()))
            real = np.ones((READY, 1), bool)
            self.rows = [({n: x[i : i + READY] for n, x in ready.items()}, real) for i in range(0, len(first), READY)]
            self.answers = [[np.asarray(output) for output in self.source.run(None, given)] for given, _ in self.rows]
            return
        sizes = [*LENGTHS, last] if (last := self._last()) > LENGTHS[-1] else [n for n in LENGTHS if n <= last]
        if last not in sizes:
            sizes.append(last)
        self.rows = [given for size in sizes for given in self._rows(size)]
        self.answers = [[np.asarray(output) for output in self.source.run(None, given)] for given, _ in self.rows]

    def compare(self, candidate: Path) -> tuple[float, float, float]:
        """The least and the mean cosine of a row's answers with the source's, and the largest difference."""
        session = _session(candidate)
        cosines: list[float] = []
        largest = 0.0
        for (given, real), wanted in zip(self.rows, self.answers, strict=True):
            got = [np.asarray(output) for output in session.run(None, given)]
            for ours, theirs in zip(got, wanted, strict=True):
                if theirs.dtype.kind != "f":
                    continue
                is_rows = theirs.ndim > 1 and theirs.shape[:2] == real.shape
                pair = [np.where(_like(real, x), x, 0) if is_rows else x for x in (ours, theirs)]
                if not np.isfinite(pair[0]).all():
                    return float("nan"), float("nan"), float("inf")
                largest = max(largest, float(np.abs(pair[0] - pair[1]).max()))
                for a, b in zip(*pair, strict=True):
                    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
                    cosines.append(float(np.vdot(a, b)) / norms if norms else 1.0)
        return min(cosines, default=1.0), float(np.mean(cosines)) if cosines else 1.0, largest

    def _last(self) -> int:
        """The longest row, up to LONGEST, that the source takes."""
        low, high = 1, LONGEST + 1
        while high - low > 1:
            middle = (low + high) // 2
            try:
                self.source.run(None, next(self._rows(middle))[0])
                low = middle
            except Exception:  # onnxruntime's exceptions have no public base
                high = middle
        return low

    def _rows(self, length: int) -> Iterator[tuple[dict[str, Array], Array]]:
        """Feeds of two rows of `length` tokens, and which tokens are real: not padded, left, right, with holes."""
        rng = np.random.default_rng(length)
        ids = rng.integers(5, self.vocabulary, (2, length))
        places = np.arange(length)
        short = max(1, length // 2)
        masks = [np.ones((2, length), bool)]
        if length > 1:
            masks += [
                np.stack([places < short, places < length]),
                np.stack([places >= length - short, places < length]),
            ]
        if length > 3:
            masks.append(np.stack([places % 3 != 1, places < length]))
        for mask in masks:
            yield {t.name: self._feed(t, np.where(mask, ids, 0), mask) for t in self.source.get_inputs()}, mask

    @staticmethod
    def _feed(tensor: ort.NodeArg, ids: Array, mask: Array) -> Array:
        dtype = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}.get(tensor.type, np.float32)
        name = tensor.name.lower()
        if "mask" in name:
            return mask.astype(dtype)
        if "type" in name or "segment" in name:
            return np.zeros(ids.shape, dtype)
        if "position" in name:
            return np.broadcast_to(np.arange(ids.shape[1]), ids.shape).astype(dtype)
        return ids.astype(dtype)


def _like(real: Array, values: Array) -> Array:
    return real.reshape(real.shape + (1,) * (values.ndim - 2))


def _session(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def texts_of(tokenizer: Tokenizer, rows: int) -> str:
    """Lines of words that the tokenizer knows, of many lengths."""
    words = [word for word in sorted(tokenizer.get_vocab()) if word.isalnum() and word.isascii()]
    rng = np.random.default_rng(0)
    return "".join(" ".join(rng.choice(words, rng.integers(1, WORDS))) + "\n" for _ in range(rows))


def tried(folder: Path, verbs: list[str], scratch: Path) -> Iterator[Row]:
    """What each of `verbs` does to the model in `folder`."""
    source = folder / "model.onnx"
    texts, vocabulary, ready = folder / "inputs.npz", 0, dict[str, Array]()
    if texts.is_file():
        ready = dict(np.load(texts))
    else:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        texts, vocabulary = scratch / "texts.txt", tokenizer.get_vocab_size()
        texts.write_text(texts_of(tokenizer, 48))
    judge: SourceAnswers | None = None
    for verb in verbs:
        written = scratch / f"{folder.name}.{verb}.onnx"
        try:
            note = _run(verb, source, written, texts)
        except SlimError as error:
            yield Row(folder.name, verb, "refused", note=one_line(error)[:150])
            continue
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            yield Row(
                folder.name, verb, "failed", note=f"{type(error).__name__}: {error} {place.name}:{place.lineno}"[:150]
            )
            continue
        if verb == "inspect":
            yield Row(folder.name, verb, "written", note=note)
            continue
        judge = judge or SourceAnswers(source, vocabulary, ready)
        try:
            yield Row(folder.name, verb, "written", *judge.compare(written), note)
        except Exception as error:
            yield Row(folder.name, verb, "unopened", note=one_line(error)[:150])
        written.unlink(missing_ok=True)


def _run(verb: str, source: Path, written: Path, texts: Path) -> str:
    if verb == "peer":
        model = onnx.load(source)
        del model.graph.value_info[:]  # on torch.export's, shape inference fails in the peer
        options = {"DefaultTensorType": onnx.TensorProto.FLOAT}
        quantize_dynamic(model, written, per_channel=True, weight_type=QuantType.QInt8, extra_options=options)
        return ""
    if verb == "inspect":
        found = inspect(source)
        if found.encoder is None:
            return f"no encoder: {found.reason}"[:170]
        proven = found.encoder.facts.proven
        problems = "; ".join(found.encoder.problems) or "none"
        return f"{sum(proven)} of {len(proven)} proven; problems: {problems}"[:170]
    tokenizer = source.parent / "tokenizer.json"
    sources = Sources(calibration=str(texts), tokenizer=tokenizer if tokenizer.is_file() else None)
    main = verb in QUANTIZE
    recipe = main_recipe(QUANTIZE[verb]) if main else Recipe.parse((EXACT | STRUCTURE)[verb])
    given = sources if recipe.wants_calibration else Sources()
    job = Job(source, written, recipe, given, working=Working(max_length=32), timing=False, overwrite=True, report=main)
    steps = run(job).steps
    if main:
        return "; ".join(step.note for step in steps if step.step.startswith(("quantize", "float")))[:90]
    return "; ".join(step.note for step in steps[1:] if step.count)[:110]


def worse(rows: list[Row]) -> list[str]:
    """For each model whose default is worse than ranges found at run time, its name and both mean cosines."""
    means = {(row.model, row.verb): row.mean for row in rows if row.mean is not None}
    found = []
    for model, verb in means:
        others = {each: means[model, each] for each in RUN_TIME if (model, each) in means}
        if verb == "default" and others and means[model, verb] < max(others.values()) - NOISE:
            listed = ", ".join(f"{each} {mean:.5f}" for each, mean in others.items())
            found.append(f"{model}: default {means[model, verb]:.5f}, {listed}")
    return found


def is_wrong(row: Row) -> bool:
    """Whether a row is what must not be: no file and no reason, no session, or an exact pass that is off."""
    off = row.verb in EXACT and row.difference is not None and not row.difference <= EXACT_WITHIN
    return row.state in ("failed", "unopened") or off or (row.cosine is not None and np.isnan(row.cosine))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--only", default="", help="regular expression of models' names")
    parser.add_argument("--verb", action="append", choices=VERBS, help="may be repeated; all by default")
    parser.add_argument("--json", type=Path, help="where the rows go too")
    given = parser.parse_args()
    models = sorted({file.parent for folder in given.folders for file in folder.glob("**/model.onnx")})
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        for folder in [model for model in models if re.search(given.only, model.name)]:
            for row in tried(folder, given.verb or list(VERBS), Path(scratch)):
                print(row, flush=True)
                rows.append(row)
    wrong = [row for row in rows if is_wrong(row)]
    print(
        f"{len(models)} models, {len(rows)} rows, {sum(r.state == 'refused' for r in rows)} refused, {len(wrong)} wrong"
    )
    for row in wrong:
        print("wrong:", row)
    losing = worse(rows)
    print(f"default worse than ranges found at run time: {len(losing)} models")
    for line in losing:
        print("worse:", line)
    if given.json:
        given.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
