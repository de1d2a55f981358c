"""`onnxslim report`: one HTML file that shows a run."""

from pathlib import Path

import click

from onnxslim_bert.cli.options import refuse_ignored
from onnxslim_bert.cli.screen import console, echo


@click.command(epilog="The page needs no network and no other file; a browser of 2024 or later shows it.")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="The file to write, .html, .svg or .png  [default: RUN/report.html]",
)
@click.option(
    "--model", "models", multiple=True, metavar="PATTERN", help="Only models whose names match, like 'bert-*'."
)
@click.option("--force", is_flag=True, help="Replace a file that exists.")
def report(run: Path, output: Path | None, models: tuple[str, ...], force: bool) -> None:
    """Show RUN, the folder of a zoo run or its run.json, or the report that `onnxslim quantize` wrote.

    On the page: which job to take of each model, what smaller and faster costs, all jobs in a table, and of each job
    what its passes did, where bytes and milliseconds went, and the sentences on which it differs most.

    \b
    onnxslim report out/ -o report.html
    onnxslim report model.int8.json -o report.html
    onnxslim report small.json -o search.svg

    With -o FILE.svg or FILE.png, and the report of a search as RUN, it draws the frontier of the models that the search
    built and the sensitivity of each layer.
    """
    from dataclasses import replace

    from onnxslim_bert.graph.files import check_output, write_atomically
    from onnxslim_bert.zoo.page.charts import check_installed
    from onnxslim_bert.zoo.page.document import load_document
    from onnxslim_bert.zoo.page.page import render
    from onnxslim_bert.zoo.page.plots import FORMATS, plot_search
    from onnxslim_bert.zoo.page.reduce import only
    from onnxslim_bert.zoo.summary import summary

    written = output or (run if run.is_dir() else run.parent) / "report.html"
    check_installed()
    check_output(written, overwrite=force, inputs=[run] if run.is_file() else [])
    if written.suffix in FORMATS:
        refuse_ignored(["models"], "for a picture of a search")
        write_atomically(written, [plot_search(run, written.suffix)], overwrite=force)
        echo(f"{written} written")
        return
    document = load_document(run)
    if models:
        document = replace(document, run=only(document.run, models))
    page = render(document)
    write_atomically(written, [page.html.encode()], overwrite=force)
    screen = console()
    screen.print(summary(document.run, screen.width))
    echo(f"{written} written{f'. {page.left_out}' if page.left_out else ''}")
