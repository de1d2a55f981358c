"""Try every verb on a folder of encoder families, and print what holds.

    python tools/family_trial.py FAMILIES... [--only REGEX] [--verb NAME]... [--rows FILE]

FAMILIES holds folders with model.onnx and, beside it, tokenizer.json, or inputs.npz of ready rows for a model that
takes no text (tools/make_families.py writes some). For each model and verb: written, refused (with the reason) or
failed; whether ONNX Runtime opens the file; and the mean and the least cosine and the largest difference to the
source's answers on rows of many lengths, padded left, right, with holes and not. The verb "peer" is
onnxruntime.quantization.quantize_dynamic. At the end stands the default (`default`) beside ranges found at run time,
ours and the peer's: mean and least cosine for each model, and on how many it is worse. Exits 1 when a verb ended in
anything but a file or a one-line reason, when a file does not open, or when an exact pass is off.

With --rows each row is added to FILE at once, and what stands there is not tried again.
"""

import argparse
import re
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path

import forked
import numpy as np
import onnx
from family_answers import SourceAnswers
from family_rows import Row, Rows, beside
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
from onnxslim_bert.targets.int8_kernels import u8s8_saturates

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
    "prune-hidden": "canonicalize?,fuse?,prune-hidden{keep=0.75,refit=false}",
    "bottleneck": "canonicalize?,fuse?,bottleneck{refit=false}",
    "share-ffn": "canonicalize?,fuse?,share-weights{groups=1,roles=ffn}",
    "share-all": "canonicalize?,fuse?,share-weights{groups=1}",
    "drop-layers": "canonicalize?,fuse?,drop-layers{layers=1}",
    "factorize": "canonicalize?,fuse?,factorize-embedding",
    "trim": "canonicalize?,trim-vocabulary",
    "low-rank": "canonicalize?,low-rank",
}
VERBS = ("inspect", *EXACT, *QUANTIZE, "peer", *STRUCTURE)
EXACT_WITHIN = 1e-4
WORDS = 24  # of a calibration text, at most


def texts_of(tokenizer: Tokenizer, rows: int) -> str:
    """Lines of words that the tokenizer knows, of many lengths."""
    words = [word for word in sorted(tokenizer.get_vocab()) if word.isalnum() and word.isascii()]
    rng = np.random.default_rng(0)
    return "".join(" ".join(rng.choice(words, rng.integers(1, WORDS))) + "\n" for _ in range(rows))


def tried(folder: Path, verbs: list[str], scratch: Path) -> Iterator[Row]:
    """What each of `verbs` does to the model in `folder`."""
    source = folder / "model.onnx"
    if not verbs:
        return
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
        narrow = u8s8_saturates()  # ONNX Runtime advises 7 bits there
        quantize_dynamic(
            model, written, per_channel=True, reduce_range=narrow, weight_type=QuantType.QInt8, extra_options=options
        )
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


def is_wrong(row: Row) -> bool:
    """Whether a row is what must not be: no file and no reason, no session, or an exact pass that is off."""
    off = row.verb in EXACT and row.difference is not None and not row.difference <= EXACT_WITHIN
    return row.state in ("failed", "unopened") or off or (row.cosine is not None and np.isnan(row.cosine))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--only", default="", help="regular expression of models' names")
    parser.add_argument("--verb", action="append", choices=VERBS, help="may be repeated; all by default")
    parser.add_argument("--rows", type=Path, metavar="FILE", help="keep each row here, and go on behind those kept")
    given = parser.parse_args()
    forked.use_forks()
    models = sorted({file.parent for folder in given.folders for file in folder.glob("**/model.onnx")})
    models = [model for model in models if re.search(given.only, model.name)]
    rows, verbs = Rows(given.rows), given.verb or list(VERBS)
    with tempfile.TemporaryDirectory() as scratch:
        for folder in models:
            for row in tried(folder, rows.missing(folder.name, verbs), Path(scratch)):
                print(row, flush=True)
                rows.add(row)
    asked = {(model.name, verb) for model in models for verb in verbs}
    found = [row for row in rows.found if (row.model, row.verb) in asked]
    wrong = [row for row in found if is_wrong(row)]
    refused = sum(row.state == "refused" for row in found)
    for row in wrong:
        print("wrong:", row)
    print("\n".join(beside(found)))
    print(f"{len(models)} models, {len(found)} rows, {refused} refused, {len(wrong)} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
