"""Measure onnxslim beside onnxruntime's own tools, on one export after the other, and against the figures to reach.

    ONNXSLIM_DATA=FOLDER python tools/bench_peers.py MODEL.onnx... --data sst2

Every file is made by a process of its own, whose CPU time and memory are measured whole; all files of an export are
timed in one interleaved run, with one thread unless --threads gives other numbers, and with nothing but the file
given to the session; each answers the evaluation rows one by one. The fused peers need sympy, those of
four bits onnx_ir, HQQ torch. Tables go to stdout in Markdown, progress to stderr.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from peer_table import Export, export_table
from peer_targets import targets_json, targets_tables
from peer_trial import CANDIDATES, Settings, run

from onnxslim_bert import __version__
from onnxslim_bert.errors import SlimError
from onnxslim_bert.machine import host


def main() -> None:
    options = parse()
    settings = Settings(
        options.data,
        options.rows,
        options.seed,
        options.tokenizer,
        options.max_length,
        tuple(options.seq),
        options.rounds,
        tuple(options.only),
        not options.skip_fidelity,
        tuple(options.batch),
        tuple(options.threads),
        options.work,
    )
    print(conditions(settings))
    exports: list[Export] = []
    for path in options.models:
        try:
            measured = run(path, settings)
        except SlimError as error:
            sys.exit(f"bench_peers: {error}")
        exports += measured
        for export in measured:
            title = f"{export.name}, {export.threads} threads" if export.threads > 1 else export.name
            print(f"\n## {title}\n\n{export_table(export, settings.lengths, settings.batches)}", flush=True)
    if singles := of_one_thread(exports):
        print(f"\n## Figures to reach\n\n{targets_tables(singles) or 'None for encoders of this size.'}")
    if options.json:
        options.json.write_text(document(exports, settings))


def of_one_thread(exports: Sequence[Export]) -> list[Export]:
    """The figures to reach are those of one thread."""
    return [export for export in exports if export.threads == 1]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ", ".join(CANDIDATES)
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL", help="exports in fp32")
    parser.add_argument("--data", default="sst2", help="a GLUE name or `reviews` (default sst2)")
    parser.add_argument("--rows", type=int, default=256, help="calibration rows (default 256)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tokenizer", type=Path, help="folder or tokenizer.json (default: the model's folder)")
    parser.add_argument("--max-length", type=int, default=128, help="tokens kept of a row (default 128)")
    parser.add_argument("--seq", type=int, nargs="+", default=[128, 32], help="lengths to time (default 128 32)")
    parser.add_argument("--batch", type=int, nargs="+", default=[1], help="sentences a timed run (default 1)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1], help="of each timed session (default 1)")
    parser.add_argument("--rounds", type=int, default=50, help="timed runs of each file and length (default 50)")
    parser.add_argument("--only", nargs="+", choices=CANDIDATES, default=CANDIDATES, metavar="NAME", help=names)
    parser.add_argument("--skip-fidelity", action="store_true", help="leave the evaluation rows out")
    parser.add_argument("--work", type=Path, metavar="FOLDER", help="keep the files there, and take those found there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure to FILE")
    return parser.parse_args()


def conditions(settings: Settings) -> str:
    """What the figures hold for, in a paragraph."""
    here = host()
    return (
        f"{here.cpu}, load {here.load}, onnxruntime {here.onnxruntime}, onnxslim-bert {__version__}. "
        f"{settings.rows} calibration rows of {settings.data}, seed {settings.seed}. "
        f"Latency: median of {settings.rounds} interleaved rounds, batch 1 unless said, "
        "one thread unless said, spinning off. "
        "CPU time and memory: of the process that makes the file; "
        "those of `onnxslim quantize` include its own evaluation and timing."
    )


def document(exports: Sequence[Export], settings: Settings) -> str:
    """Every figure as JSON."""
    everything = {
        "onnxslim_bert": __version__,
        "host": asdict(host()),
        "settings": asdict(settings),
        "exports": [asdict(export) for export in exports],
        "targets": targets_json(of_one_thread(exports)),
    }
    return json.dumps(everything, indent=2, default=str) + "\n"


if __name__ == "__main__":
    main()
