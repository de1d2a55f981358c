"""What a session needs to run on one provider, as plain data, so that another process can do the same."""

import functools
import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import onnxruntime as ort

from onnxslim_bert.errors import ProviderError
from onnxslim_bert.graph.runtime_words import in_words

CPU_PROVIDER = "CPUExecutionProvider"
NO_OPTIONS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Setup:
    """How a session on one provider is made.

    provider: its name in ONNX Runtime.
    library: file of its plugin; "" when it is built in.
    hardware: the kind of device to take of those that a plugin offers, "CPU" for instance; "" for all.
    options: the provider's own.
    session: entries of the session's configuration.
    start: the words that start a Python program in an emulator of another CPU; () for this machine.
    """

    provider: str
    library: str = ""
    hardware: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    session: Mapping[str, str] = field(default_factory=dict)
    start: tuple[str, ...] = ()


CPU_SETUP = Setup(CPU_PROVIDER)


def plugin_package(module: str, extra: str) -> Any:
    """The Python package that brings a plugin. Raises ProviderError when it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ProviderError(f"{extra} is not installed: pip install 'onnxslim-bert[{extra}]'") from error


def attach(options: ort.SessionOptions, setup: Setup) -> None:
    """Add the provider to a session's options. Raises ProviderError when this machine has no device for it.

    Never by a selection policy: those fail once the plugin of QNN is registered.
    """
    for key, value in setup.session.items():
        options.add_session_config_entry(key, value)
    if not setup.library:
        options.add_provider(setup.provider, dict(setup.options))
        return
    devices = plugin_devices(setup.provider, setup.library, setup.hardware)
    if not devices:
        raise ProviderError(f"{setup.provider} offers no device on this machine, whose CPU is by {cpu_vendor()}")
    options.add_provider_for_devices(devices, dict(setup.options))


def plugin_devices(provider: str, library: str, hardware: str = "") -> list[ort.OrtEpDevice]:
    """What a plugin offers on this machine: devices of one kind of `hardware`, CPU for instance, or all.

    Raises ProviderError when its library cannot be loaded.
    """
    _register(provider, library)
    return [device for device in _offered(provider) if hardware in ("", device.device.type.name)]


@functools.cache
def _register(provider: str, library: str) -> None:
    """Load a plugin's library, once in a process: ONNX Runtime refuses a second time."""
    if _offered(provider):
        return
    try:
        ort.register_execution_provider_library(provider, library)
    except Exception as error:  # ONNX Runtime's exceptions share no public base
        raise ProviderError(f"the library of {provider} cannot be loaded ({in_words(error)})") from error


def cpu_vendor() -> str:
    """Who made this machine's CPU, as ONNX Runtime sees it."""
    return next((device.device.vendor for device in _offered(CPU_PROVIDER)), "") or "an unknown vendor"


def _offered(provider: str) -> list[ort.OrtEpDevice]:
    return [device for device in ort.get_ep_devices() if device.ep_name == provider]
