"""The options that choose providers, shared by the commands that run models."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from onnxslim_bert.targets.places import Places
    from onnxslim_bert.targets.target import Target


def targets_of(ctx: click.Context, param: click.Parameter, value: str) -> "tuple[Target, ...]":
    """Targets from names with commas between them, each once."""
    from onnxslim_bert.errors import ProviderError
    from onnxslim_bert.targets.table import target_named

    try:
        return tuple(target_named(name) for name in dict.fromkeys(part.strip() for part in value.split(",") if value))
    except ProviderError as error:
        raise click.BadParameter(str(error), ctx, param) from error


def provider_options(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, dict[str, str]]:
    """The providers' own options by target, from EP.NAME=VALUE."""
    from onnxslim_bert.targets.table import PLACES

    options: dict[str, dict[str, str]] = {}
    for text in values:
        place, equals, value = text.partition("=")
        target, dot, name = place.partition(".")
        if not (equals and dot and name and target in PLACES):
            raise click.BadParameter(f"{text!r} is not EP.NAME=VALUE, like qnn.soc_model=69", ctx, param)
        options.setdefault(target, {})[name] = value
    return options


def places(
    targets: "tuple[Target, ...]",
    allow_fallback: bool,
    options: dict[str, dict[str, str]],
    shape: tuple[int, int] | None = None,
) -> "Places":
    """Where models run, by the options together. Raises UsageError for an option of a provider that is not chosen."""
    from onnxslim_bert.targets.places import Places

    unused = sorted(options.keys() - {target.name for target in targets})
    if unused:
        raise click.UsageError(f"--ep-option is given for {unused[0]}, which --ep does not name")
    return Places(targets, allow_fallback, options, shape)


def runs_on(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command `targets`, `allow_fallback` and `options`."""
    names = click.option(
        "--ep", "targets", callback=targets_of, metavar="EP,...", default="cpu", show_default=True,
        help="Providers to run on: cpu, openvino, qnn, coreml, nnapi; emulated cpu@arm64, cpu@arm64-v8.",
    )  # fmt: skip
    fallback = click.option("--allow-fallback", is_flag=True, help="Accept nodes that a provider leaves to the CPU.")
    own = click.option(
        "--ep-option", "options", callback=provider_options, multiple=True, metavar="EP.NAME=VALUE",
        help="An option of a provider, like qnn.soc_model=69.",
    )  # fmt: skip
    return names(fallback(own(command)))
