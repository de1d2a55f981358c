"""Layers of an encoder named in the options of a pass, as 0/5."""

from collections.abc import Sequence

from onnxslim_bert.errors import PassError


def read_layers(option: str, text: str, like: str) -> list[int]:
    """The numbers in `text`, each once; none when it is empty. Raises PassError that begins with `option`."""
    try:
        named = [int(part) for part in text.split("/")] if text else []
    except ValueError:
        raise PassError(f"{option} needed whole numbers, like {like}") from None
    if len({*named}) < len(named):
        raise PassError(f"{option} names a layer twice")
    return named


def check_layers(option: str, named: Sequence[int], count: int) -> None:
    """Raise PassError when an encoder of `count` layers lacks one of those named."""
    if missing := [str(layer) for layer in named if not 0 <= layer < count]:
        raise PassError(f"{option}: no layer {', '.join(missing)}: the encoder has 0 to {count - 1}")
