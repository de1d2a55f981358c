"""`onnxslim schema`: what a program may rely on in the JSON documents."""

import click

from onnxslim_bert.cli.screen import echo, echo_text


@click.command()
@click.argument("name", required=False)
def schema(name: str | None) -> None:
    """List the JSON documents that commands print, or print the JSON Schema of the one called NAME.

    \b
    onnxslim schema
    onnxslim schema report > report.schema.json
    """
    from onnxslim_bert.inspection.verify.schema import schema as schema_text
    from onnxslim_bert.inspection.verify.schema import titles

    if name is not None:
        echo_text(schema_text(name).removesuffix("\n"))
        return
    for known, title in titles().items():
        echo(f"{known:<16} {title}")
