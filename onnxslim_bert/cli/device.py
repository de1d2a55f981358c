"""`onnxslim device`: bundles that run on a phone or a board, and the results that come back."""

from pathlib import Path

import click

from onnxslim_bert.cli.options import COUNT, SEED, TARGETS, THREADS, refuse_ignored
from onnxslim_bert.cli.progress import progress_bar
from onnxslim_bert.cli.reading_options import reads_texts
from onnxslim_bert.cli.screen import echo
from onnxslim_bert.wording import plural

FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
ANY = click.Path(exists=True, path_type=Path)


def provider_options(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """KEY=VALUE, or KEY alone for a flag; neither may hold what separates them on a runner's command line."""
    for value in values:
        if not value.partition("=")[0] or "|" in value or len(value.split()) != 1:
            raise click.BadParameter(f"{value!r} is no KEY=VALUE without spaces and |", ctx, param)
    return {key: value for key, _, value in (item.partition("=") for item in values)}


@click.group()
def device() -> None:
    """Run a model on a phone or a board, and compare its answers here.

    \b
    onnxslim device bundle model.nnapi.onnx --base model.onnx --data sst2 --rows 32 --target nnapi --seq 64 -o phone
    onnxslim device run phone --runner onnxruntime_perf_test --adb
    onnxslim device import phone/results.json
    """


@device.command()
@click.argument("model", type=FILE)
@click.option(
    "--data",
    required=True,
    help="A GLUE name (its validation split), a built-in set like `reviews`, or a file.",
)
@click.option("--text-column", "text_columns", multiple=True, help="Name one or two text columns of a file.")
@click.option("--rows", type=COUNT, default=32, show_default=True, help="Rows drawn from the data.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Of the rows drawn.")
@click.option("--tokenizer", type=ANY, help="Folder or tokenizer.json  [default: BASE's folder]")
@reads_texts
@click.option("--base", type=FILE, help="Model whose answers on the CPU are expected  [default: MODEL]")
@click.option("--target", type=click.Choice(TARGETS), required=True, help="Provider that runs it.")
@click.option("--batch", type=COUNT, help="Rows a run  [default: what MODEL fixes, else 1]")
@click.option("--seq", "length", type=COUNT, help="Tokens a row, padded  [default: what MODEL fixes, else the text's]")
@click.option(
    "--option", "options", multiple=True, callback=provider_options, help="KEY=VALUE of the provider, or KEY."
)
@click.option("--allow-fallback", is_flag=True, help="Let nodes run on the CPU provider.")
@click.option("--threads", type=THREADS, default=1, show_default=True, help="Of the session.")
@click.option("--warmup", type=click.IntRange(min=0), default=5, show_default=True, help="Untimed runs.")
@click.option("--runs", type=COUNT, default=100, show_default=True, help="Timed runs.")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder to make.")
def bundle(
    model: Path,
    data: str,
    text_columns: tuple[str, ...],
    rows: int,
    seed: int,
    tokenizer: Path | None,
    inputs: str,
    base: Path | None,
    target: str,
    batch: int | None,
    length: int | None,
    options: dict[str, str],
    allow_fallback: bool,
    threads: int,
    warmup: int,
    runs: int,
    output: Path,
) -> None:
    """Write MODEL, test vectors with the expected outputs, and a manifest to a folder.

    Runs are strict: a node that the provider leaves to the CPU fails the run, unless --allow-fallback.
    """
    from onnxslim_bert.calibration.load_tokenizer import tokenizer_of
    from onnxslim_bert.calibration.loading import load_dataset
    from onnxslim_bert.calibration.working import Working
    from onnxslim_bert.device.make import make_bundle
    from onnxslim_bert.device.manifest import RunSettings

    dataset = load_dataset(data, "evaluation", rows=rows, seed=seed, text_columns=text_columns or None)
    if dataset.feeds is not None:
        refuse_ignored(["tokenizer", "text_columns", "inputs"], "with ready inputs")
    reader = tokenizer_of(base or model, tokenizer, inputs) if dataset.feeds is None else None
    plan = RunSettings(target, options, allow_fallback, threads, warmup, runs)
    with progress_bar() as progress:
        made = make_bundle(
            model,
            dataset,
            Working(tokenizer=reader, progress=progress),
            output,
            plan,
            base=base,
            batch=batch,
            length=length,
        )
    tokens = f"{made.length} tokens" if made.length else "their own lengths"
    echo(
        f"{output}: {plural(made.vectors, 'test vector')} of {plural(made.batch, 'row')}, {tokens}, "
        f"expected from {made.base}"
    )


@device.command()
@click.argument("bundle", type=FOLDER)
@click.option("--runner", type=FILE, required=True, help="onnxruntime_perf_test or alike, built for the device.")
@click.option("--library", "libraries", type=FILE, multiple=True, help="Shared library to lay beside the runner.")
@click.option(
    "--adb", "serial", is_flag=False, flag_value="", required=True, metavar="[SERIAL]", help="Reach the device by adb."
)
@click.option("--timeout", type=COUNT, default=600, show_default=True, help="Seconds granted to the runner.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Results  [default: results.json in BUNDLE]")
@click.option("--force", is_flag=True, help="Replace results that exist.")
def run(
    bundle: Path,
    runner: Path,
    libraries: tuple[Path, ...],
    serial: str,
    timeout: int,
    output: Path | None,
    force: bool,
) -> None:
    """Run BUNDLE on a device, write its results, and show them.

    The runner gets the arguments of onnxruntime_perf_test, which times but writes no outputs: one that writes
    outputs/test_data_set_k/output_i.pb has them compared. Nothing stays on the device.
    """
    from onnxslim_bert.cli.device_tables import report
    from onnxslim_bert.device.adb import connect
    from onnxslim_bert.device.answers import compare
    from onnxslim_bert.device.bundle import open_bundle
    from onnxslim_bert.device.manifest import RESULTS
    from onnxslim_bert.device.run import run_on_device
    from onnxslim_bert.documents import write_document
    from onnxslim_bert.graph.files import check_output, write_atomically

    opened = open_bundle(bundle)
    output = output or bundle / RESULTS
    check_output(output, overwrite=force)
    results = run_on_device(opened, connect(serial or None), runner, libraries=libraries, timeout=timeout)
    write_atomically(output, [write_document(results)], overwrite=force)
    report([compare(results, opened, output)])


@device.command("import")
@click.argument("paths", metavar="[BUNDLE] RESULTS...", nargs=-1, required=True, type=ANY)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of tables.")
def import_results(paths: tuple[Path, ...], as_json: bool) -> None:
    """Check RESULTS against their BUNDLE, compare the outputs here, and show both beside each other.

    BUNDLE may be left out when the first results lie in it. Results of another bundle, partial or corrupted ones are
    refused; NaN or infinite outputs end with exit code 3.
    """
    from onnxslim_bert.cli.device_tables import report
    from onnxslim_bert.device.answers import compare, read_results
    from onnxslim_bert.device.bundle import open_bundle
    from onnxslim_bert.device.manifest import RESULTS

    given = list(paths)
    folder = given.pop(0) if given[0].is_dir() else given[0].parent
    opened = open_bundle(folder)
    read = [(path, read_results(path, opened)) for path in given or [folder / RESULTS]]
    report([compare(results, opened, path) for path, results in read], as_json)
