"""Time onnxslim beside onnxruntime's quantize_dynamic on the shapes of known encoders, random weights, one run each.

    python tools/bench_shapes.py [NAME]... [--layers 3] [--seq 128]

Every shape has its published widths, heads, windows and gates, and some of its layers, which are all alike. Both files
are timed with the float export in interleaved rounds, batch 1, one thread. Fidelity means nothing on random weights and
is not measured. Needs the [export] extra. A table goes to stdout in Markdown, progress to stderr.

With --ragged, a batch holds one text of the length asked for and shorter ones, evenly spread (1,024 and 512 of two),
and the model answers its first token's state:

    python tools/bench_shapes.py modernbert --ragged --seq 1024 --batch 2 --recipe "canonicalize?,fuse?,unpad?"
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import make_families
import numpy as np
import onnxruntime as ort
import peers
import torch
import transformers
from family_trial import texts_of

from onnxslim_bert import __version__
from onnxslim_bert.graph.files import model_bytes
from onnxslim_bert.graph.sessions import CPU, session_options
from onnxslim_bert.job.data import Sources
from onnxslim_bert.job.job import Job
from onnxslim_bert.job.run import run
from onnxslim_bert.machine import host
from onnxslim_bert.proof.bench import Latency, Rounds, bench, interleave
from onnxslim_bert.proof.intervals import paired_ratio
from onnxslim_bert.proof.markdown import table
from onnxslim_bert.recipes.recipe import Recipe

RECIPE = "canonicalize?,fuse?,quantize-static,skip-mask?"
BASE: dict[str, Any] = {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072}
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {  # the configuration's class, and what is published of it
    "mpnet": ("MPNetConfig", {**BASE, "max_position_embeddings": 514, "pad_token_id": 1}),
    "deberta-v3": (
        "DebertaV2Config",
        {
            **BASE,
            "relative_attention": True,
            "position_buckets": 256,
            "pos_att_type": ["p2c", "c2p"],
            "share_att_key": True,
            "norm_rel_ebd": "layer_norm",
            "position_biased_input": False,
            "type_vocab_size": 0,
        },
    ),
    "nomic": ("NomicBertConfig", {**BASE, "max_position_embeddings": 2048}),
    "modernbert": (
        "ModernBertConfig",
        {**BASE, "intermediate_size": 1152, "local_attention": 128, "max_position_embeddings": 8192},
    ),
    "mobilebert": ("MobileBertConfig", {"hidden_size": 512, "embedding_size": 128, "intra_bottleneck_size": 128}),
}
EAGER = ("mpnet", "deberta-v3")  # transformers has no SDPA for these
ROWS = 4  # of calibration: ranges cost no time when they are run
FILES = ("fp32", "peer", "ours")


def main() -> None:
    options = parse()
    here = host()
    print(
        f"{here.cpu}, load {here.load}, onnxruntime {here.onnxruntime}, onnxslim-bert {__version__}; {options.layers}"
    )
    print(
        f"layers, {options.vocabulary} words, {options.export}; `{options.recipe}`; batch {options.batch}, one thread,"
    )
    print(f"{options.rounds} interleaved rounds; milliseconds, and in brackets the file's MB.\n")
    rows = []
    for name in options.names:
        with tempfile.TemporaryDirectory() as scratch:
            rows += measured(name, (options.work or Path(scratch)) / name, options)
            print(" ".join(rows[-1]), file=sys.stderr, flush=True)
    headers = ["shape", "tokens", *FILES, "ours over fp32", "ours over the peer", "file over the peer's"]
    print(table(headers, rows))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(SHAPES), metavar="NAME", help=", ".join(SHAPES))
    parser.add_argument("--layers", type=int, default=3, help="encoder layers (default 3)")
    parser.add_argument("--seq", type=int, nargs="+", default=[128], help="lengths to time (default 128)")
    parser.add_argument(
        "--ragged", action="store_true", help="one text of --seq tokens and shorter ones; the first token answers"
    )
    parser.add_argument("--batch", type=int, default=1, help="rows at once (default 1)")
    parser.add_argument("--rounds", type=int, default=30, help="timed runs of each file and length (default 30)")
    parser.add_argument("--vocabulary", type=int, default=30000, help="words of the table (default 30000)")
    parser.add_argument("--export", choices=make_families.EXPORTS, default="dyn20-sdpa")
    parser.add_argument("--recipe", default=RECIPE, help=f"what makes our file (default {RECIPE})")
    parser.add_argument("--work", type=Path, help="folder to keep what is made; exports found there are taken")
    return parser.parse_args()


def measured(name: str, folder: Path, options: argparse.Namespace) -> list[Sequence[str]]:
    """The lines of one shape, one a length."""
    paths = {file: folder / f"{file}.onnx" for file in FILES}
    if not paths["peer"].exists():
        folder.mkdir(parents=True, exist_ok=True)
        export(name, paths["fp32"], options)
        copy = peers.without_types(paths["fp32"], folder / "copy.onnx")
        peers.dynamic(copy, peers.Job(str(copy), str(paths["peer"]), 0, 0, "", 0, 0, "", 0))
    made_of(paths["fp32"], paths["ours"], options.recipe)
    timed = [each for length in options.seq for each in latencies(list(paths.values()), length, options)]
    sizes = {file: model_bytes(path) for file, path in paths.items()}
    return [
        line(name, length, timed[i * len(FILES) : (i + 1) * len(FILES)], sizes) for i, length in enumerate(options.seq)
    ]


def latencies(paths: Sequence[Path], length: int, options: argparse.Namespace) -> Sequence[Latency]:
    """Of each file, on rows of `length` tokens, or of that and shorter ones."""
    if not options.ragged:
        rounds = Rounds(options.rounds)
        return bench(paths, batch_sizes=[options.batch], lengths=[length], rounds=rounds, footprints=False).latencies
    lengths = np.linspace(length, length / options.batch, options.batch).astype(int)
    mask = (np.arange(length) < lengths[:, None]).astype(np.int64)
    feeds = {"input_ids": mask * np.random.default_rng(0).integers(5, 300, mask.shape), "attention_mask": mask}
    sessions = [ort.InferenceSession(path, session_options(1), CPU) for path in paths]
    times = interleave(sessions, [[feeds]] * len(paths), rounds=options.rounds, warmup=1, seed=0)
    found: list[Latency] = []
    for path, own in zip(paths, times.T, strict=True):
        median, p90, p99 = (float(np.percentile(own, share)) for share in (50, 90, 99))
        ratio = paired_ratio(times[:, 0], own, seed=0)
        found.append(Latency(str(path), options.batch, length, median, p90, p99, ratio))
    return found


class FirstState(make_families.Wrapped):
    """Token ids and mask in, the first token's last hidden state out."""

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state[:, 0]


def export(name: str, path: Path, options: argparse.Namespace) -> None:
    """Write the shape's export, and a tokenizer for it, to the folder of `path`."""
    config_name, sizes = SHAPES[name]
    exporter, opset, attention = make_families.EXPORTS[options.export]
    attention = attention if name not in EAGER else "eager"
    torch.manual_seed(0)
    config = getattr(transformers, config_name)(
        **{"pad_token_id": 0, **sizes}, num_hidden_layers=options.layers, vocab_size=options.vocabulary
    )
    model = transformers.AutoModel.from_config(config, attn_implementation=attention)
    wrapper = FirstState if options.ragged else make_families.LastState
    make_families.write(wrapper(model).eval(), path, (exporter, opset), make_families.TEXT)
    make_families.tokenizer().save(str(path.with_name("tokenizer.json")))


def made_of(source: Path, output: Path, recipe: str) -> None:
    """Our file of `source`, calibrated on made-up texts."""
    texts = source.with_name("texts.txt")
    texts.write_text(texts_of(make_families.tokenizer(), ROWS))
    parsed = Recipe.parse(recipe)
    data = Sources(str(texts)) if parsed.wants_calibration else Sources()
    run(Job(source, output, parsed, data, timing=False, allow_noop=True, overwrite=True))


def line(name: str, length: int, timed: Sequence[Latency], sizes: dict[str, int]) -> Sequence[str]:
    """One line of the table. timed: of FILES, in their order."""
    times = [f"{each.median_ms:.2f} ({sizes[file] / 1e6:.2f})" for file, each in zip(FILES, timed, strict=True)]
    peer, ours = (each.speedup.value for each in timed[1:])
    ratio = sizes["ours"] / sizes["peer"]
    return [name, str(length), *times, f"{ours:.2f}x", f"{ours / peer:.2f}x", f"{ratio:.4f}"]


if __name__ == "__main__":
    main()
