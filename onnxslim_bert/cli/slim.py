"""`onnxslim slim`: any sequence of passes, or the sequence that reaches a target."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from onnxslim_bert.cli.folder_options import FolderOptions, told, writes_folder, written_as_folder
from onnxslim_bert.cli.gate_options import BUDGETS, held_to
from onnxslim_bert.cli.options import COUNT, TARGETS, Finite, refuse_ignored
from onnxslim_bert.cli.progress import progress_bar
from onnxslim_bert.cli.reading_options import RowOptions, works_on_rows
from onnxslim_bert.cli.screen import echo
from onnxslim_bert.cli.shown_report import show_report
from onnxslim_bert.cli.shown_steps import show_steps

if TYPE_CHECKING:
    from onnxslim_bert.job.seal import Gate


DOWNLOAD = "Bytes after gzip, which is what an app ships, like 12MB: with -p a budget, else what is searched for."
DROP = "Points that the task metric may drop: with -p a budget, else search for the fastest model within it."


@click.command(
    epilog="`onnxslim passes` lists the passes; a `?` after one lets it find nothing to do. Exit code: 0 written; "
    "2 usage, model or data; 5 provider. A missed budget writes nothing: 3 accuracy or agreement; 4 latency; 6 size."
)
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "-p", "--recipe", help="Passes with options: fuse,quantize-static{method=mse}; @NAME for a recipe that ships."
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The file to write; a folder when MODEL is one.")
@written_as_folder
@click.option(
    "--target",
    "place",
    type=click.Choice(TARGETS),
    default="cpu",
    show_default=True,
    help="On what the model is to run: what follows the recipe is as for `quantize --target`; a search times there.",
)
@click.option("--seq", type=COUNT, help="Tokens in a row, for qnn, coreml and nnapi.")
@click.option("--allow-fallback", is_flag=True, help="Accept nodes that the target leaves to the CPU.")
@click.option("--target-speedup", type=Finite(min=0), help="Search for a model this many times as fast as MODEL.")
@click.option("--target-size", metavar="SIZE", help="Search for a model of at most this size, like 10MB.")
@held_to(least=0, drop=DROP, download=DOWNLOAD)
@click.option(
    "--calib",
    help="Calibration texts: a GLUE name (its training split), a built-in set like `reviews`, or a file.",
)
@click.option(
    "--data", help="Evaluation texts; a search takes the validation split of a named --calib by itself, of a file half."
)
@click.option(
    "--corpus",
    help="Texts whose tokens count and that `distill` learns from: a GLUE name (training split) or a file, every row.",
)
@click.option(
    "--distill", is_flag=True, help="A search trains the best plans, too, on texts of --corpus: needs PyTorch."
)
@click.option(
    "--distill-texts",
    type=COUNT,
    default=100_000,
    show_default=True,
    help="Texts that --distill trains the best plan on, copies with replaced tokens included.",
)
@click.option("--batch", type=COUNT, default=1, show_default=True, help="Rows a run on which a search times models.")
@click.option(
    "--rewrite-tokenizer",
    is_flag=True,
    help="After trim-vocabulary: no id map, a smaller tokenizer.json beside OUTPUT.",
)
@works_on_rows(512)
@click.option(
    "--keep-steps",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Keep the model after each step there, and print size, parameters, FLOPs, latency and metric of each.",
)
@click.option("--allow-noop", is_flag=True, help="Accept a pass that changes nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("--force", is_flag=True, help="Replace a file that exists.")
@click.option("--in-place", is_flag=True, help="Replace MODEL itself.")
def slim(
    model: Path,
    recipe: str | None,
    place: str,
    seq: int | None,
    allow_fallback: bool,
    output: Path | None,
    placed: FolderOptions,
    target_speedup: float | None,
    target_size: str | None,
    gate: "Gate",
    calib: str | None,
    data: str | None,
    corpus: str | None,
    distill: bool,
    distill_texts: int,
    batch: int,
    rewrite_tokenizer: bool,
    reading: RowOptions,
    keep_steps: Path | None,
    allow_noop: bool,
    as_json: bool,
    force: bool,
    in_place: bool,
) -> None:
    """Run the passes of a recipe over MODEL, or search for the recipe that reaches a target at the least damage.

    \b
    onnxslim slim model.onnx -p "canonicalize?,fuse,first-token" -o fast.onnx
    onnxslim slim model.onnx -p "canonicalize?,fuse,prune-ffn{keep=0.6},quantize-static" --calib sst2 -o small.onnx
    onnxslim slim model.onnx -p "canonicalize?,fuse,prune-ffn" --target qnn --seq 64 --calib sst2 -o small.qnn.onnx
    onnxslim slim all-MiniLM-L6-v2/ -p "canonicalize?,fuse" -o all-MiniLM-L6-v2-fused/
    onnxslim slim model.onnx --target-speedup 4 --calib sst2 -o small.onnx
    onnxslim slim model.onnx --target-size 12MB --target-speedup 6 --max-drop 1 --calib sst2 --corpus sst2 -o small.onnx
    onnxslim slim model.onnx --max-download 10MB --calib sst2 -o small.onnx
    onnxslim slim model.onnx --target-speedup 8 --distill --calib sst2 --corpus sst2 -o small.onnx

    A search prints every model that it found on the way, with the recipe that makes it, also where none meets the
    target. What it measures lies in OUTPUT's folder until it ends: the same command goes on where it was stopped.
    """
    from onnxslim_bert.graph.model_folders import find_model
    from onnxslim_bert.job.deployment import Deployment
    from onnxslim_bert.job.job import Job
    from onnxslim_bert.job.main_recipe import main_recipe
    from onnxslim_bert.job.run import run
    from onnxslim_bert.job.seal import OPEN
    from onnxslim_bert.job.search.run import run_search
    from onnxslim_bert.job.search.targets import Targets
    from onnxslim_bert.proof.gates import parse_size
    from onnxslim_bert.recipes.known import read_recipe
    from onnxslim_bert.recipes.lowering import lowered

    targeted, download = target_speedup is not None or target_size is not None, gate.budgets.max_download
    searches = targeted or (recipe is None and (gate.budgets.max_drop is not None or download is not None))
    if (recipe is None) is not searches:
        names = "--target-speedup, --target-size, --max-download, --max-drop"
        raise click.UsageError(f"give either a recipe (-p) or a target ({names})")
    if target_size is not None and download is not None:
        raise click.UsageError("--target-size and --max-download each say how small: give one of them")
    if (output is None) is not in_place:
        raise click.UsageError("give either -o OUTPUT or --in-place")
    of_recipe = [*BUDGETS[1:-1], "strict", "allow_noop", "rewrite_tokenizer", "keep_steps"]
    refuse_ignored(of_recipe if searches else ["batch", "distill"], "with" + "out" * (not searches) + " a target")
    if not distill:
        refuse_ignored(["distill_texts"], "without --distill")
    if calib is None:
        refuse_ignored(["rows", "corpus", "rewrite_tokenizer"], "without --calib")
    if calib is None and data is None:
        timed = gate.budgets.min_speedup is not None or keep_steps is not None
        of_runs = [] if timed else ["max_length", "seed", "threads"]
        refuse_ignored([*of_runs, "tokenizer", "text_columns", "task", "output_name"], "without --calib or --data")
    if data is None:
        refuse_ignored(["label_column"], "without --data")
    of_folders = writes_folder(model, output, in_place)
    if of_folders and searches:
        raise click.UsageError("a search writes one file: give -o FILE.onnx")
    model = model if of_folders else find_model(model)
    placed.check_metrics()
    where = Deployment(place, () if seq is None else (seq,), allow_fallback)
    rows = reading.sources(calib, data, corpus, own_split=searches)
    with progress_bar() as progress:
        job = Job(
            source=model,
            output=output or model,
            recipe=main_recipe() if recipe is None else lowered(read_recipe(recipe), place, seq),
            data=rows,
            deployment=where,
            working=reading.working(progress),
            gate=OPEN if searches else gate,
            report=searches,
            timing=False,
            allow_noop=allow_noop,
            rewrite_tokenizer=rewrite_tokenizer,
            overwrite=force,
            in_place=in_place,
            steps=keep_steps,
        )
        folder = None
        if searches:
            nbytes = download if target_size is None else parse_size(target_size)
            targets = Targets(target_speedup, nbytes, gate.budgets.max_drop, packed=download is not None)
            report = run_search(job, targets, batch, distill_texts if distill else 0)
        else:
            folder = placed.job(job) if of_folders else None
            report = run(job) if folder is None else folder.run()
    placed.keep_metrics(report)
    show_report(report, reading.max_length, as_json=as_json)
    for line in told(folder) if folder is not None and report.published and not as_json else ():
        echo(line)
    if keep_steps is not None:
        show_steps(report, keep_steps, rows, job.working, as_json=as_json)
    report.enforce()
