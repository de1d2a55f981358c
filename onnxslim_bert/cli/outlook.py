"""`onnxslim MODEL`: what a model is, what could be done with it here, and the command to type."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from onnxslim_bert.cli.screen import echo, echo_json

if TYPE_CHECKING:
    from onnxslim_bert.inspection.outlook import Outlook


@click.command(name="MODEL", epilog="Exit code 2 when the file is no model, or nothing can be done with it.")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
def outlook(model: Path, as_json: bool) -> None:
    """Print what MODEL is, what could be done with it on this machine, what that would give, and the command to type.

    \b
    onnxslim model.onnx
    onnxslim all-MiniLM-L6-v2/ --json
    """
    from onnxslim_bert.errors import ModelError
    from onnxslim_bert.inspection.outlook import outlook as look

    found = look(model)
    if as_json:
        echo_json(found.to_json())
    else:
        show(found)
    if not found.offers:
        raise ModelError(f"{model}: {found.reason}")


def show(found: "Outlook") -> None:
    """Print the model, the machine, and each offer with its command."""
    from onnxslim_bert.wording import si

    echo(f"{found.path}: {found.kind}; {si(found.nbytes, 'B')}")
    sets = " ".join(found.instruction_sets) or "instruction sets unknown"
    echo(f"here: {found.host.cpu}, {sets}; models run on {', '.join(found.runs_on)}; load {found.host.load}")
    if not found.offers:
        return
    shape = f"{found.batch} row{'s' * (found.batch > 1)} of {found.length} tokens"
    echo(f"as it is: {found.ms:.2f} ms for {shape} on one thread")
    echo("")
    for offer in found.offers:
        size = "size as asked" if offer.nbytes is None else f"about {si(offer.nbytes, 'B')}"
        speed = f"speed {offer.known}" if offer.speedup is None else f"{offer.speedup:.1f}x as fast ({offer.known})"
        echo(f"{offer.what}: {size}, {speed}")
        echo(f"    {offer.command}")
    echo("")
    echo(f"estimates: {found.basis}")
    echo("--calib takes a file of your own texts, too, which fit better than the built-in `reviews`")
