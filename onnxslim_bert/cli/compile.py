"""`onnxslim compile`: context binaries, so that a device need not compile."""

from pathlib import Path

import click

from onnxslim_bert.cli.screen import echo
from onnxslim_bert.wording import plural


@click.command(epilog="Exit code 5 when the target is not installed or leaves a node; `onnxslim explain` says why.")
@click.argument("model", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--target", "name", type=click.Choice(["qnn"]), default="qnn", show_default=True, help="Who compiles.")
@click.option(
    "--soc",
    "socs",
    multiple=True,
    default=("57",),
    show_default=True,
    help="The chip by soc_model, once for each file: 36 (v69), 43, 60 (v73), 57 (v75), 69 (v79), 87 (v81).",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file to write; with several chips each is named in its own  [default: MODEL.ctx.onnx]",
)
@click.option("--force", is_flag=True, help="Replace files that exist.")
def compile(model: Path, name: str, socs: tuple[str, ...], output: Path | None, force: bool) -> None:
    """Compile MODEL for a chip, ahead of time, and check that the file answers the same when it is loaded.

    MODEL has fixed shapes and runs on the target as a whole.

    \b
    onnxslim compile model.qnn.onnx --soc 57
    onnxslim compile model.qnn.onnx --soc 43 --soc 57 --soc 69 -o model.ctx.onnx
    """
    from onnxslim_bert.device.compile_context import compile_contexts, default_outputs
    from onnxslim_bert.targets.table import target_named

    target = target_named(name)
    for done in compile_contexts(model, default_outputs(model, socs, output), target, overwrite=force):
        whole = f"all {plural(done.placement.taken, 'node')} in {plural(done.placement.partitions, 'partition')}"
        echo(
            f"{done.path}: {done.nbytes / 1e6:.1f} MB for soc {done.soc} (v{done.arch}), {whole}; "
            "answers the same when loaded"
        )
