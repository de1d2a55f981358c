"""Measure what leaving out heads, neurons and layers costs and buys, beside a peer and the figures to reach.

    ONNXSLIM_DATA=FOLDER python tools/bench_structure.py MODEL.onnx --calib sst2 --rows 512

Every file is timed in one interleaved run, one thread, and answers the evaluation rows one by one. The peer needs
`pip install onnxsim==0.8.1`. Tables go to stdout in Markdown, progress to stderr.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from structure_cases import CASES, EMBEDDINGS, Case
from structure_states import write_states
from structure_table import Row, structure_table
from structure_trial import Settings, Workbench

from onnxslim_bert import __version__
from onnxslim_bert.errors import SlimError
from onnxslim_bert.machine import host

PEER = "onnxsim"


def main() -> None:
    options = parse()
    settings = Settings(
        options.calib,
        options.rows,
        options.seed,
        options.tokenizer or options.model.parent,
        options.max_length,
        options.seq,
        options.rounds,
    )
    peer = None if options.skip_peer else peer_version()
    print(conditions(options.model, settings, peer), flush=True)
    tables: dict[str, list[Row]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        try:
            folder = Path(scratch)
            cases = [case for case in CASES if case.name in (options.only or [case.name])]
            tables |= tables_of("", options.model, folder, cases, options.recipe, settings, peer)
            if options.embeddings:
                states = folder / "states.onnx"
                write_states(options.model, states)
                cases = [case for case in EMBEDDINGS if case.name in (options.only or [case.name])]
                tables |= tables_of(", embeddings", states, folder / "states", cases, (), settings, peer)
        except SlimError as error:
            sys.exit(f"bench_structure: {error}")
    if options.json:
        options.json.write_text(document(tables, settings, peer))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ", ".join(case.name for case in CASES)
    parser.add_argument("model", type=Path, metavar="MODEL", help="an export in fp32")
    parser.add_argument("--calib", default="sst2", help="a GLUE name or `reviews` (default sst2)")
    parser.add_argument("--rows", type=int, default=512, help="calibration rows, without labels (default 512)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tokenizer", type=Path, help="folder or tokenizer.json (default: the model's folder)")
    parser.add_argument("--max-length", type=int, default=128, help="tokens kept of a row (default 128)")
    parser.add_argument("--seq", type=int, default=128, help="length to time and to count FLOPs at (default 128)")
    parser.add_argument("--rounds", type=int, default=50, help="timed runs of each file (default 50)")
    parser.add_argument("--only", nargs="+", choices=[case.name for case in CASES], metavar="CASE", help=names)
    parser.add_argument("--recipe", action="append", default=[], metavar="PASSES", help="one more line, by any recipe")
    parser.add_argument("--embeddings", action="store_true", help="the same on the mean-pooled last hidden state")
    parser.add_argument("--skip-peer", action="store_true", help=f"leave {PEER} out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure to FILE")
    return parser.parse_args()


def tables_of(
    what: str,
    model: Path,
    folder: Path,
    cases: Sequence[Case],
    recipes: Sequence[str],
    settings: Settings,
    peer: str | None,
) -> dict[str, list[Row]]:
    """Our rows and the peer's by title, printed as well."""
    folder.mkdir(exist_ok=True)
    workbench = Workbench(model, folder, settings)
    ours = [workbench.base(), *map(workbench.ours, cases), *map(workbench.recipe, recipes)]
    chosen = {row.name: row.cut for row in ours}
    cuts = [(case, case.cut or chosen[case.name]) for case in cases if peer and not case.then]
    theirs = [workbench.theirs(case, cut) for case, cut in cuts if cut]
    rows = workbench.timed([*ours, *theirs])
    tables = {f"onnxslim{what}": rows[: len(ours)]}
    if theirs:
        tables[f"{PEER} {peer}{what}"] = [rows[0], *rows[len(ours) :]]
    for title, lines in tables.items():
        print(f"\n## {title}\n\n{structure_table(lines, settings.length)}", flush=True)
    return tables


def peer_version() -> str | None:
    """The version of the peer that is installed; says so when none is."""
    try:
        return metadata.version(PEER)
    except metadata.PackageNotFoundError:
        print(f"bench_structure: {PEER} is not installed, so there is no table of it", file=sys.stderr)
        return None


def conditions(model: Path, settings: Settings, peer: str | None) -> str:
    """What the figures hold for, in a paragraph."""
    here = host()
    text = (
        f"{model.stem}. {here.cpu}, load {here.load}, onnxruntime {here.onnxruntime}, onnxslim-bert {__version__}. "
        f"{settings.rows} calibration rows of {settings.data} without labels, seed {settings.seed}. FLOPs: of the "
        f"encoder, at {settings.length} tokens. Latency: median of {settings.rounds} interleaved rounds, batch 1, one "
        "thread, spinning off. CPU time: of the whole recipe, calibration included; of `40 % of FLOPs` the choice "
        "among mixtures of heads and neurons too."
    )
    if peer:
        text += (
            f" {PEER} gets the graph that `fuse` writes and the same rows, in batches without padding; it scores "
            "units by weights and activations, those of a classifier's pooler along with neurons, and refits by ridge "
            "regression; CPU time is that of its process."
        )
    return text


def document(tables: dict[str, list[Row]], settings: Settings, peer: str | None) -> str:
    """Every figure as JSON."""
    everything = {
        "onnxslim_bert": __version__,
        PEER: peer,
        "host": asdict(host()),
        "settings": asdict(settings),
        "tables": {title: [row_json(row) for row in rows] for title, rows in tables.items()},
    }
    return json.dumps(everything, indent=2, default=str) + "\n"


def row_json(row: Row) -> dict[str, Any]:
    """A row without its file, which is gone, and with verdicts for limits."""
    return asdict(replace(row, file=None, asked=())) | {"asked": row.verdicts()}


if __name__ == "__main__":
    main()
