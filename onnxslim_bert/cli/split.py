"""`onnxslim split`: a model that reads the texts of a pair apart as two files, so that passages are encoded once."""

from pathlib import Path

import click

from onnxslim_bert.cli.screen import echo, echo_json


@click.command()
@click.argument("model", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="New folder to write.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
def split(model: Path, output: Path, as_json: bool) -> None:
    """Write MODEL, decoupled, as a passage encoder, the joint part, and a manifest of both.

    The states of a passage are computed once and kept; the joint part takes them with any question, one for all
    passages or one for each. The two are compared with MODEL before the folder gets its name.

    \b
    onnxslim slim model.onnx -p canonicalize,fuse,decouple{layers=3},distill --calib stsb --data stsb -o apart.onnx
    onnxslim split apart.onnx -o serving
    """
    from onnxslim_bert.documents import plain
    from onnxslim_bert.job.split import JOINT, PASSAGE
    from onnxslim_bert.job.split import split as write

    done = write(model, output)
    if as_json:
        echo_json(plain(done))
        return
    echo(f"{output / PASSAGE}: {', '.join(done.passage)} -> {done.states} [passages, passage, {done.hidden}]")
    given = [*done.question, done.states, *([done.mask] if done.mask else [])]
    echo(f"{output / JOINT}: {', '.join(given)} -> {', '.join(done.outputs)}")
    echo(f"{done.layers} layers run once a passage; answers within {done.difference:.1e} of the whole model's")
