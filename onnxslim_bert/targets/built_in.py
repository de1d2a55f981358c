"""Providers that are part of ONNX Runtime itself, where a build has them."""

from collections.abc import Callable, Mapping

import onnxruntime as ort

from onnxslim_bert.errors import ProviderError
from onnxslim_bert.targets.arm64.emulator import command
from onnxslim_bert.targets.setup import CPU_PROVIDER, Setup

# session.x64quantprecision "1" runs u8 x s8 products as u8 x u8, which cannot saturate on AVX2
# (https://github.com/microsoft/onnxruntime/blob/main/include/onnxruntime/core/session/onnxruntime_session_options_config_keys.h).
CPU_OPTIONS = ("session.x64quantprecision",)


def cpu(options: Mapping[str, str], threads: int) -> Setup:
    """The CPU provider. options: entries of the session's configuration that change results. Raises ProviderError."""
    unknown = [name for name in options if name not in CPU_OPTIONS]
    if unknown:
        raise ProviderError(f"cpu has no option '{unknown[0]}': it takes {', '.join(CPU_OPTIONS)}")
    return Setup(CPU_PROVIDER, session=dict(options))


def arm64(model: str) -> Callable[[Mapping[str, str], int], Setup]:
    """The CPU provider on an emulated CPU of 64-bit ARM. model: the emulator's name of the CPU."""

    def setup(options: Mapping[str, str], threads: int) -> Setup:
        if options:
            raise ProviderError(f"cpu@arm64 has no options, and {next(iter(options))!r} is given")
        return Setup(CPU_PROVIDER, start=command(model))

    return setup


def coreml(options: Mapping[str, str], threads: int) -> Setup:
    """The CoreML provider with its newer format, which takes an encoder's operators. Raises ProviderError off Apple's.

    ModelFormat is MLProgram, unless `options` say otherwise.
    """
    return _part_of_this_build(
        "coreml", "CoreMLExecutionProvider", "macOS and iOS", {"ModelFormat": "MLProgram", **options}
    )


def nnapi(options: Mapping[str, str], threads: int) -> Setup:
    """The provider of Android's neural networks API, deprecated since Android 15. Raises ProviderError off Android."""
    return _part_of_this_build("nnapi", "NnapiExecutionProvider", "Android", options)


def _part_of_this_build(name: str, provider: str, home: str, options: Mapping[str, str]) -> Setup:
    if provider not in ort.get_available_providers():
        raise ProviderError(
            f"{name} runs on {home}, not here: `onnxslim explain MODEL --target {name}` predicts what it takes"
        )
    return Setup(provider, options=dict(options))
