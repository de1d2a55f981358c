"""OpenVINO, a plugin that runs on Intel's hardware."""

import json
from collections.abc import Mapping

from onnxslim_bert.errors import ProviderError
from onnxslim_bert.targets.setup import Setup, cpu_vendor, plugin_devices, plugin_package

PROVIDER = "OpenVINOExecutionProvider"
HARDWARE = "CPU"


def openvino(options: Mapping[str, str], threads: int) -> Setup:
    """OpenVINO's CPU device. options: properties of that device, INFERENCE_PRECISION_HINT=f32 for instance.

    They go into `load_config`, where OpenVINO refuses what it does not know; the provider ignores every other key in
    silence. Properties: https://docs.openvino.ai/2025/openvino-workflow/running-inference/inference-devices-and-modes/cpu-device.html.
    Raises ProviderError when the plugin is not installed or finds no device: it offers none on a CPU of another maker
    (`GetSupportedDevices` compares the vendor with 0x8086).
    """
    library = plugin_package("onnxruntime_ep_openvino", "openvino").get_library_path()
    if not plugin_devices(PROVIDER, library, HARDWARE):
        raise ProviderError(f"openvino runs on CPUs by Intel only, and this one is by {cpu_vendor()}")
    properties = {"INFERENCE_NUM_THREADS": str(threads), **options}
    return Setup(PROVIDER, library, HARDWARE, {"load_config": json.dumps({"CPU": properties})})
