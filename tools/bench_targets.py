"""Models lowered for execution providers: how much of each runs there, and how well it still answers.

    python tools/bench_targets.py MODEL... [--only CASE...] [--evaluate 200]

Every MODEL is an export in fp32. A line says how many nodes the provider took, in how many partitions, how often the
lowered model gives the class that MODEL gives on the CPU, and what its file and its context binaries weigh. Latency is
left out: QNN runs on an emulator. CoreML and NNAPI are predicted, and the answers are then the CPU's.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from peer_table import markdown

from onnxslim_bert import __version__
from onnxslim_bert.calibration.dataset import Dataset
from onnxslim_bert.calibration.load_tokenizer import load_tokenizer
from onnxslim_bert.calibration.working import Working
from onnxslim_bert.cli.progress import progress_bar
from onnxslim_bert.device.compile_context import compile_contexts, default_outputs
from onnxslim_bert.errors import DataError, SlimError
from onnxslim_bert.graph.files import model_bytes
from onnxslim_bert.job.data import Data, Sources
from onnxslim_bert.job.deployment import Deployment
from onnxslim_bert.job.job import Job
from onnxslim_bert.job.run import run
from onnxslim_bert.machine import host
from onnxslim_bert.proof.comparison import Comparison, compare
from onnxslim_bert.proof.evaluation import answer, evaluate
from onnxslim_bert.proof.outputs import Outputs
from onnxslim_bert.recipes.lowering import LOWERINGS, Mode, lowering
from onnxslim_bert.recipes.recipe import Recipe
from onnxslim_bert.targets.placement import Placement
from onnxslim_bert.targets.prediction.predict import PREDICTED, predict
from onnxslim_bert.targets.session import open_on
from onnxslim_bert.targets.table import TARGETS


@dataclass(frozen=True)
class Case:
    """One way to lower a model for a target.

    mode: a mode of the target's lowering, None for its default. then: passes instead of those of the mode.
    socs: chips that context binaries are made for. lowered: False asks about the export as it is.
    """

    name: str
    target: str
    mode: Mode | None = None
    then: str = ""
    socs: tuple[str, ...] = ()
    lowered: bool = True


CASES = (
    Case("qnn", "qnn", socs=("43", "57", "69", "87")),
    Case("qnn u8 in attention", "qnn", then="quantize-qdq{activations=mixed}"),
    Case("qnn u8", "qnn", then="quantize-qdq{activations=u8}"),
    Case("qnn fp16", "qnn", mode="fp32"),
    Case("coreml as exported", "coreml", lowered=False),
    Case("coreml", "coreml"),
    Case("coreml fp32", "coreml", mode="fp32"),
    Case("nnapi as exported", "nnapi", lowered=False),
    Case("nnapi", "nnapi"),
    Case("openvino", "openvino"),
    Case("openvino int8", "openvino", mode="static"),
)


@dataclass(frozen=True)
class Row:
    """One lowered model. contexts: bytes of the context binary by chip. failure: why there is nothing else."""

    model: str
    case: str
    placement: Placement | None = None
    comparison: Comparison | None = None
    nbytes: int = 0
    contexts: dict[str, int] = field(default_factory=dict)
    failure: str = ""


def main() -> None:
    options = parse()
    try:
        rows = measure(options)
    except SlimError as error:
        sys.exit(f"bench_targets: {error}")
    here = host()
    print(f"\n{targets_table(rows)}\n")
    print(
        f"{here.cpu}, onnxruntime {here.onnxruntime}, onnxslim-bert {__version__}; {options.rows} calibration rows of "
        f"{options.calib}, {options.seq} tokens, seed {options.seed}"
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [case.name for case in CASES]
    parser.add_argument("models", type=Path, nargs="+", metavar="MODEL", help="an export in fp32")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="CASE", help=", ".join(names))
    parser.add_argument("--calib", default="sst2", help="a GLUE name or `reviews` (default sst2)")
    parser.add_argument("--rows", type=int, default=256, help="calibration rows (default 256)")
    parser.add_argument("--evaluate", type=int, metavar="ROWS", help="evaluate on the first ROWS only (default: all)")
    parser.add_argument("--seq", type=int, default=64, help="tokens of a row (default 64)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tokenizer", type=Path, help="folder or tokenizer.json (default: the model's folder)")
    return parser.parse_args()


def measure(options: argparse.Namespace) -> list[Row]:
    """A row for each model and case; each is printed to stderr once it is there. Raises SlimError."""
    calibration, evaluation = Sources(calibration=options.calib, rows=options.rows).load(options.seed)
    if calibration is None or evaluation is None:
        raise DataError(f"{options.calib} has no evaluation rows of its own: needed a GLUE name or `reviews`")
    evaluation = evaluation.take(range(min(options.evaluate or len(evaluation), len(evaluation))))
    rows = []
    for model in options.models:
        bench = Workbench(model, options.tokenizer or model.parent, calibration, evaluation, options.seq, options.seed)
        for case in CASES:
            if case.name in options.only:
                rows.append(bench.row(case))
                print(targets_table(rows[-1:]).splitlines()[-1], file=sys.stderr, flush=True)
    return rows


class Workbench:
    """Lowers one model by every case and compares it with itself."""

    def __init__(
        self, path: Path, tokenizer: Path, calibration: Dataset, evaluation: Dataset, seq: int, seed: int
    ) -> None:
        self.path, self.calibration, self.evaluation, self.seq = path, calibration, evaluation, seq
        self.working = Working(max_length=seq, seed=seed, tokenizer=load_tokenizer(tokenizer))
        self.exact: Outputs = evaluate(path, evaluation, self.working)

    def row(self, case: Case) -> Row:
        """What comes of a case, or why nothing does."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "model.onnx"
            try:
                if case.lowered:
                    self.lower(case, file)
                return self.judged(case, file if case.lowered else self.path)
            except SlimError as error:
                return Row(self.path.stem, case.name, failure=str(error).replace(str(file), case.name))

    def lower(self, case: Case, file: Path) -> None:
        """Write the lowered model to `file`."""
        form, mode = lowering(case.target, case.mode, self.seq if LOWERINGS[case.target].is_fixed else None)
        then = Recipe.parse(case.then) if case.then else mode
        recipe = Recipe((*form.steps, *then.steps))
        data = Data(self.calibration if recipe.wants_calibration else None)
        seqs = (self.seq,) if LOWERINGS[case.target].is_fixed else ()
        where = Deployment(case.target, seqs, allow_fallback=True)
        run(Job(self.path, file, recipe, data, where, self.working, report=False, timing=False))

    def judged(self, case: Case, file: Path) -> Row:
        """Run the file on its target, strictly; where nothing executes, predict, and run it on the CPU."""
        target = TARGETS[case.target]
        if target.name in PREDICTED:
            placement = predict(file, target.name, (1, self.seq))
            found = evaluate(file, self.evaluation, self.working)
            seen = compare(self.exact, found, self.evaluation)
            return Row(self.path.stem, case.name, placement, seen, model_bytes(file))
        contexts = compile_contexts(file, default_outputs(file, case.socs), target) if case.socs else []
        session, placement = open_on(target, file)
        with progress_bar() as progress:
            working = replace(self.working, progress=progress)
            found = answer(session, file, self.evaluation, working, target=target)
        return Row(
            self.path.stem,
            case.name,
            placement,
            compare(self.exact, found, self.evaluation),
            model_bytes(file),
            {done.soc: done.nbytes for done in contexts},
        )


def targets_table(rows: Sequence[Row]) -> str:
    """One line a row, in Markdown."""
    head = [
        "model",
        "case",
        "nodes",
        "partitions",
        "rows",
        "agreement %",
        "difference",
        "largest",
        "accuracy",
        "drop",
        "MB",
    ]
    return markdown([*head, "contexts, MB by soc"], [_cells(row) for row in rows])


def _cells(row: Row) -> list[str]:
    if row.placement is None or row.comparison is None:
        return [row.model, row.case, f"failed: {row.failure.replace('|', '/')}", *[""] * 9]
    seen, placed = row.comparison, row.placement
    near, score = seen.fidelity, seen.scores[0] if seen.scores else None
    return [
        row.model,
        row.case,
        f"{placed.taken}/{placed.total}",
        str(placed.partitions),
        str(seen.rows),
        "" if near.agreement is None else f"{near.agreement.value:.2f}",
        f"{near.mean_difference:.2g}",
        f"{near.max_difference:.2g}",
        "" if score is None else f"{score.candidate.value:.2f}",
        "" if score is None else f"{score.drop.value:.2f}",
        f"{row.nbytes / 1e6:.1f}",
        ", ".join(f"{soc}: {nbytes / 1e6:.1f}" for soc, nbytes in row.contexts.items()),
    ]


if __name__ == "__main__":
    main()
