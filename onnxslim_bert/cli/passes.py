"""`onnxslim passes`: the table of passes."""

import dataclasses
import inspect as python

import click

from onnxslim_bert.cli.screen import echo, echo_text


@click.command(
    epilog="A recipe is text: fuse,quantize-static{method=mse,embeddings=false}. A `?` after a pass lets it do nothing."
)
@click.argument("name", required=False)
def passes(name: str | None) -> None:
    """List the passes, or explain the one called NAME with its options and their defaults.

    \b
    onnxslim passes
    onnxslim passes quantize-static
    """
    from onnxslim_bert.errors import PassError
    from onnxslim_bert.passes import PASSES
    from onnxslim_bert.rewriting.contract import promise
    from onnxslim_bert.rewriting.options import nearest, write_option

    if name is None:
        for known, kind in PASSES.items():
            echo(f"{known:20} {(python.getdoc(kind) or '').splitlines()[0]}")
        return
    if name not in PASSES:
        raise PassError(f"no pass {name!r}{nearest(name, PASSES)}; `onnxslim passes` lists them")
    echo_text(f"{name}\n\n{python.getdoc(PASSES[name])}")
    echo_text(f"\n{promise(PASSES[name])}")
    options = dataclasses.fields(PASSES[name])  # type: ignore[arg-type]
    if options:
        echo_text("\nDefaults: " + ", ".join(f"{option.name}={write_option(option.default)}" for option in options))
