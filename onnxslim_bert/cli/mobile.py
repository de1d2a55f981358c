"""`onnxslim mobile`: a model in ORT format, for a small build of ONNX Runtime."""

from pathlib import Path

import click

from onnxslim_bert.cli.screen import echo, echo_json

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("model", type=FILE)
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="New folder to write.")
@click.option(
    "--style",
    type=click.Choice(["runtime", "fixed"]),
    default="runtime",
    show_default=True,
    help="Optimize on the device where no provider takes a node, or all now.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
def mobile(model: Path, output: Path, style: str, as_json: bool) -> None:
    """Write MODEL as .ort with the operators that a reduced build of ONNX Runtime needs.

    By ONNX Runtime's own converter. The file is loaded and its answers are compared before the folder gets its name.

    \b
    onnxslim mobile model.onnx -o phone
    onnxslim mobile model.onnx -o phone --style fixed
    """
    from onnxslim_bert.device.mobile import write_mobile

    done = write_mobile(model, output, "fixed" if style == "fixed" else "runtime")
    if as_json:
        facts = {"model": str(done.model), "operators": str(done.operators)}
        echo_json({**facts, "nbytes": done.nbytes, "difference": done.difference})
        return
    echo(f"{done.model}: {done.nbytes / 1e6:.1f} MB, answers within {done.difference:.1e} of the largest")
    echo(f"{done.operators}: for a build of ONNX Runtime with --include_ops_by_config")
