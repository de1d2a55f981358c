"""Runs for the report to show: one of each kind of trouble, and one that is large. The numbers are made up."""

import random
from dataclasses import replace

from onnxslim_bert.machine import Host
from onnxslim_bert.proof.bench import Latency
from onnxslim_bert.proof.comparison import Comparison, Score
from onnxslim_bert.proof.fidelity import Fidelity
from onnxslim_bert.proof.gates import Budgets, Verdict
from onnxslim_bert.proof.intervals import Interval, McNemar
from onnxslim_bert.recipes.provenance import Provenance
from onnxslim_bert.recipes.run import Done
from onnxslim_bert.targets.placement import Left, Placement
from onnxslim_bert.zoo.records import Disagreement, LayerSensitivity, Result, Row, Run, Source, Study, Timed, Timing

HOST = Host("Test CPU", 2, 0.1, "Linux x86_64", "1.31.1")
HOSTILE = "<img src=x onerror=window.hacked=1>"
SCRIPT = "</script><script>window.hacked=2</script>"
PARTS = {"embeddings": 47_670_000, "attention": 14_210_000, "feed-forward": 28_330_000, "head": 640_000, "other": 3_200}
PROFILE = {"matmul": 21.4, "attention": 4.1, "norm": 2.2, "activation": 3.9, "other": 1.3}
RECIPES = {  # of each: the file's size, its time and its loss beside the source's, and the passes
    "int8": (0.254, 0.30, 0.10, "canonicalize?,fuse?,smooth?,quantize-static{method=minmax},skip-mask?"),
    "int8-qdq": (0.255, 0.33, 0.12, "canonicalize?,fuse{style=standard}?,quantize-static{format=qdq}"),
    "dynamic": (0.253, 0.41, 0.35, "canonicalize?,fuse?,quantize-dynamic"),
    "small": (0.128, 0.18, 0.75, "canonicalize?,fuse,prune-ffn{keep=0.5},prune-heads{keep=0.5},quantize-static"),
    "tiny": (
        0.101,
        0.14,
        2.10,
        "canonicalize?,fuse,drop-layers{layers=3},factorize-embedding{rank=96},quantize-static",
    ),
    "phone": (0.262, 0.0, 0.16, "canonicalize,fix-shapes{seq=64},mask-bias,quantize-qdq"),
}
SENTENCES = (
    "a gorgeous , witty , seductive movie .",
    "it 's not horrible , just horribly mediocre .",
    'the film is <b>strictly</b> routine & "proud" of it .',
    "hilariously inept and ridiculous .",
    "one long string of cliches .",
)


def sample_run() -> Run:
    """24 jobs: four models, six recipes; with labels, with scores, with neither, and with a name that is an attack."""
    models = ("minilm-l6-sst2", "stsb-cross-encoder", "sentence-embedder", HOSTILE)
    kinds = ("classes", "score", "embedding", "agreement")
    sources, rows = [], []
    for index, (model, kind) in enumerate(zip(models, kinds, strict=True)):
        source, made = model_rows(model, kind, seed=index)
        sources.append(source)
        rows += made
    trouble = {
        ("stsb-cross-encoder", "tiny"): (
            "failed",
            2,
            "factorize-embedding: rank 96 is no less than the width 64 of the embedding",
        ),
        ("stsb-cross-encoder", "small"): ("timeout", 1, "stopped after 1,800 s, its limit"),
        ("sentence-embedder", "dynamic"): ("memory", 1, "held 4.1 GB, more than the 4 GB that it may"),
        (HOSTILE, "tiny"): ("crashed", 1, f"SIGSEGV in {SCRIPT}"),
        (HOSTILE, "phone"): ("waiting", 0, ""),
    }
    ended = []
    for row in rows:
        status, code, message = trouble.get((row.model, row.recipe), ("done", row.exit_code, ""))
        nothing = {"result": None, "timed": None, "verdicts": (), "path": ""} if status != "done" else {}
        ended.append(replace(row, status=status, exit_code=code, message=message, **nothing))
    return Run("zoo.toml", tuple(sources), tuple(ended), 1284.0)


def large_run(models: int = 300) -> Run:
    """Many models with six jobs each."""
    made = [model_rows(f"team-{index % 7}/model-{index:03}", "classes", seed=index) for index in range(models)]
    return Run(
        "zoo.toml", tuple(source for source, _ in made), tuple(row for _, rows in made for row in rows), 90_000.0
    )


def crowded_run() -> Run:
    """One model with thirty jobs that are nearly alike."""
    source, rows = model_rows("crowded", "classes", seed=1)
    copies = [
        replace(row, recipe=f"{row.recipe}-{turn}-Wide", key=f"{turn}{row.key[1:]}", result=_heavier(row.result, turn))
        for turn in range(5)
        for row in rows
    ]
    return Run("zoo.toml", (source,), tuple(copies), 60.0)


def _heavier(result: Result, turn: int) -> Result:
    return replace(result, output_bytes=round(result.output_bytes * (1 + turn / 100)))


def model_rows(model: str, kind: str, seed: int) -> tuple[Source, list[Row]]:
    """One model with a job for each recipe; the same for the same seed."""
    rng = random.Random(seed)
    nbytes, slow = round(90_900_000 * rng.uniform(0.6, 1.4)), 33.0 * rng.uniform(0.8, 1.2)
    parts = {name: round(share * nbytes / 90_900_000) for name, share in PARTS.items()}
    rows = [_row(model, kind, recipe, nbytes, slow, parts, rng) for recipe in RECIPES]
    layers = tuple(
        LayerSensitivity(layer, rng.uniform(0.002, 0.02) * (1 + layer % 3), 0.03 - 0.002 * layer) for layer in range(6)
    )
    study = Study(
        f"{seed:064x}", parts, layers if kind != "score" else (), "" if kind != "score" else "no calibration rows"
    )
    timed = Timed(_latency(model, slow, slow), {name: value * slow / 33 for name, value in PROFILE.items()})
    outputs = {row.key: row.timed for row in rows if row.timed}
    timings = {
        "cpu": Timing(f"{seed + 1:064x}", "cpu", timed, outputs, HOST, 30, 1),
        "qnn": Timing(f"{seed + 2:064x}", "qnn", None, {}, HOST, 0, 1, "an emulator ran it"),
    }
    return Source(model, f"exports/{model}.onnx", f"{seed:064x}", nbytes, study, timings), rows


def _row(
    model: str, kind: str, recipe: str, nbytes: int, slow: float, parts: dict[str, int], rng: random.Random
) -> Row:
    size, time, loss, text = RECIPES[recipe]
    target = "qnn" if recipe == "phone" else "cpu"
    key = f"{rng.getrandbits(256):064x}"
    output, fast, loss = (
        round(nbytes * size * rng.uniform(0.97, 1.03)),
        slow * time * rng.uniform(0.95, 1.05),
        loss * rng.uniform(0.5, 1.4),
    )
    comparison = _comparison(kind, loss)
    steps = tuple(_done(step, order, output, loss) for order, step in enumerate(_steps(text)))
    result = Result(
        key=key,
        files={"model.onnx": f"{rng.getrandbits(256):064x}"},
        model="model.onnx",
        source_bytes=nbytes,
        output_bytes=output,
        provenance=Provenance(
            "0.5", "1.23.2", "1.31.1", f"{model}.onnx", "0" * 64, text, "sst2 train, 256 rows", "1" * 64
        ),
        steps=steps,
        methods={"minmax": 0.0214, "entropy": 0.0391} if recipe == "int8" else {},
        placement=_placement() if target == "qnn" else None,
        unproven="times of an emulator say nothing of a device" if target == "qnn" else "",
        proven_on="cpu",
        comparison=comparison,
        worst=_worst(kind, loss, rng),
        parts={name: round(value * size) for name, value in parts.items()},
    )
    timed = (
        Timed(_latency(recipe, fast, slow), {name: value * fast / 33 for name, value in PROFILE.items()})
        if time
        else None
    )
    budgets, verdicts = Budgets(max_drop=1.0, min_speedup=2.0), []
    if comparison.scores:
        drop = comparison.scores[0].drop
        name = "missed" if drop.value > 1 else "inconclusive" if drop.high > 1 else "met"
        verdicts.append(Verdict("max-drop", name, f"{drop.value:.4g} points, wanted at most 1 points"))
    if timed:
        verdicts.append(Verdict("min-speedup", "met", f"{slow / fast:.4g}x, wanted at least 2x"))
    code = 3 * any(verdict.outcome == "missed" for verdict in verdicts)
    return Row(
        key, model, recipe, target, text, "done", "", code, 1, recipe == "dynamic",
        41.2 * (1 + loss), 37.9 * (1 + loss), 912_000_000, "host:4711",
        f"models/{model}/{recipe}.{target}.onnx", budgets, tuple(verdicts), result, timed,
    )  # fmt: skip


def _steps(text: str) -> list[str]:
    return text.split(",")


def _done(step: str, order: int, output: int, loss: float) -> Done:
    found = {"nodes": 231 - 17 * order, "nbytes": output * (5 - order), "damage": loss * order / 50 if order else None}
    return Done(step, 12 * order, f"{12 * order} places changed" if order else "nothing to do", 0.4 + order, **found)


def _latency(model: str, milliseconds: float, slow: float) -> Latency:
    gain = slow / milliseconds
    return Latency(
        model, 1, 128, milliseconds, milliseconds * 1.08, milliseconds * 1.3, Interval(gain, gain * 0.98, gain * 1.02)
    )


def _comparison(kind: str, loss: float) -> Comparison:
    scores, test, close = (), None, Fidelity(872, 0.028 * (1 + loss), 0.31 * (1 + loss))
    if kind == "classes":
        drop = Interval(loss - 0.2, loss - 0.75, loss + 0.35)
        base, made = Interval(89.33, 87.1, 91.2), Interval(89.53 - loss, 87.2 - loss, 91.4 - loss)
        scores, test = (Score("accuracy", base, made, drop),), McNemar(4, 3, 1.0)
    if kind == "score":
        scores = (
            Score(
                "pearson",
                Interval(88.1, 86.9, 89.2),
                Interval(88.1 - loss, 86.8 - loss, 89.0 - loss),
                Interval(loss, loss - 0.1, loss + 0.1),
            ),
        )
        close = replace(close, shift=0.004, correlation=99.9 - loss)
    if kind in ("classes", "agreement"):
        close = replace(close, agreement=Interval(100 - 1.1 * loss, 99.2 - 1.3 * loss, 99.98 - 0.7 * loss), kl=0.0004)
    if kind == "embedding":
        close = replace(close, cosine=1 - loss / 80, min_cosine=1 - loss / 30)
    output = "embedding" if kind == "embedding" else "logits"
    shape = {"classes": "classes", "agreement": "classes", "score": "score", "embedding": "embedding"}[kind]
    return Comparison("sst2", "validation", 872, "2" * 64, output, shape, scores, test, close, 0, 2000, 0)


def _worst(kind: str, loss: float, rng: random.Random) -> tuple[Disagreement, ...]:
    texts = [*SENTENCES, f"says {SCRIPT} and {HOSTILE}"]
    pair = kind == "score"
    return tuple(
        Disagreement(
            row=rng.randrange(872),
            text=(text, "a second sentence of the pair") if pair else (text,),
            base=rng.uniform(0, 5) if pair else float(index % 2),
            candidate=rng.uniform(0, 5) if pair else float((index + (index < 2)) % 2),
            label=None if kind in ("embedding", "agreement") else float(index % 2),
            distance=(2.0 - index / 4) * loss,
            flipped=index < 2,
        )
        for index, text in enumerate(texts)
    )


def _placement() -> Placement:
    left = [
        Left(
            f"/encoder/layer.{layer}/Erf", "Erf", "no operator of the HTP backend", "canonicalize,fuse{style=standard}"
        )
        for layer in range(6)
    ]
    left.append(Left("/pooler/Gather", "Gather", f"index of a type that it refuses {HOSTILE}"))
    return Placement("QNNExecutionProvider", 719, 726, 7, tuple(left))
