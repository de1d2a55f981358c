"""`onnxslim recipes`: the recipes that ship."""

import click

from onnxslim_bert.cli.screen import echo


@click.command(epilog="`onnxslim slim MODEL -p @NAME` runs one; more steps may stand before and after it.")
@click.argument("name", required=False)
def recipes(name: str | None) -> None:
    """List the recipes that ship, or print the steps of the one called NAME.

    \b
    onnxslim recipes
    onnxslim recipes int8
    """
    from onnxslim_bert.recipes.known import known_recipes, read_recipe

    if name is None:
        for known, recipe in known_recipes().items():
            echo(f"{'@' + known:24} {recipe.summary}")
        return
    for step in read_recipe(f"@{name.removeprefix('@')}").steps:
        echo(str(step))
