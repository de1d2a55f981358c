"""Measure onnxslim beside onnxruntime's own tools, on one export after the other, and against the figures to reach.

    ONNXSLIM_DATA=FOLDER taskset -c 0 python tools/bench_peers.py MODEL.onnx... --data sst2

Every file is made by a process of its own, whose CPU time and memory are measured whole; all files of an export are
timed in one interleaved run, one thread, nothing but the file given to the session; each answers the evaluation rows
one by one. The fused peers need sympy. Tables go to stdout in Markdown, progress to stderr.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from measured import Failed, measure
from peer_table import Export, Row, export_table
from peer_targets import targets_json, targets_tables
from peers import PEERS, Job, without_types

from onnxslim_bert import __version__
from onnxslim_bert.bench import bench
from onnxslim_bert.calibration.datasets import Dataset
from onnxslim_bert.comparison import Comparison, compare
from onnxslim_bert.encoder import Encoder
from onnxslim_bert.errors import DataError, SlimError
from onnxslim_bert.evaluation import Outputs, evaluate
from onnxslim_bert.footprint import model_bytes
from onnxslim_bert.host import host
from onnxslim_bert.model import Model
from onnxslim_bert.pipeline import run_recipe
from onnxslim_bert.recipe import Recipe
from onnxslim_bert.sources import Sources

EXACT = "canonicalize?,fuse?,first-token?,skip-mask?"
# Our commands; {calibration} and {data} stand for the options of the run.
OURS = {
    "onnxslim": "quantize {calibration}",
    "onnxslim-qdq": "quantize {calibration} --format qdq",
    "onnxslim-dynamic": "quantize --mode dynamic {data}",
    "onnxslim-exact": f"slim -p {EXACT}",
}
NAMES = (*PEERS, *OURS)


def main() -> None:
    options = parse()
    try:
        exports = [run(path, options) for path in options.models]
    except SlimError as error:
        sys.exit(f"bench_peers: {error}")
    print(f"\n## Targets\n\n{targets_tables(exports) or 'None for encoders of these sizes.'}")
    if options.json:
        settings = {name: str(value) for name, value in vars(options).items()}
        document = {
            "onnxslim_bert": __version__,
            "host": asdict(host()),
            "settings": settings,
            "exports": [asdict(export) for export in exports],
            "targets": targets_json(exports),
        }
        options.json.write_text(json.dumps(document, indent=2) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL", help="exports in fp32")
    parser.add_argument("--data", default="sst2", help="a set with splits of its own: a GLUE name or `reviews`")
    parser.add_argument("--rows", type=int, default=256, help="calibration rows (default 256)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tokenizer", type=Path, help="folder or tokenizer.json (default: the model's folder)")
    parser.add_argument("--max-length", type=int, default=128, help="tokens kept of a row (default 128)")
    parser.add_argument("--seq", type=int, nargs="+", default=[128, 32], help="lengths to time (default 128 32)")
    parser.add_argument("--rounds", type=int, default=50, help="timed runs of each file and length (default 50)")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--skip-fidelity", action="store_true", help="do not answer the evaluation rows")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    return parser.parse_args()


@dataclass(frozen=True)
class Judge:
    """What every candidate's answers are compared with: those of the export to the evaluation rows."""

    evaluation: Dataset
    sources: Sources
    base: Outputs
    max_length: int

    def compare(self, path: Path) -> Comparison:
        """The candidate's answers against the export's."""
        return compare(self.base, self.answers(self, path), self.evaluation)
