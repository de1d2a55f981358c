"""The one table of targets. A new provider is one row here and one lowering; an emulated CPU is one row."""

import difflib
from collections import ChainMap

from onnxslim_bert.errors import ProviderError
from onnxslim_bert.targets.built_in import arm64, coreml, cpu, nnapi
from onnxslim_bert.targets.openvino import openvino
from onnxslim_bert.targets.qnn import qnn, qnn_reasons
from onnxslim_bert.targets.setup import CPU_PROVIDER
from onnxslim_bert.targets.target import Target

CPU = Target("cpu", CPU_PROVIDER, cpu, ("int8", "float32"), "any CPU")

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        CPU,
        Target(
            "openvino",
            "OpenVINOExecutionProvider",
            openvino,
            ("bfloat16", "int8", "float32"),
            "Intel CPUs",
            extra="openvino",
        ),
        Target(
            "qnn",
            "QNNExecutionProvider",
            qnn,
            ("int16", "int8", "float16"),
            "Qualcomm Hexagon, here its emulator",
            fixed_shapes=True,
            extra="qnn",
            emulated=True,
            reasons=qnn_reasons,
        ),
        Target("coreml", "CoreMLExecutionProvider", coreml, ("float16", "float32"), "macOS and iOS", fixed_shapes=True),
        Target(
            "nnapi",
            "NnapiExecutionProvider",
            nnapi,
            ("float32", "uint8"),
            "Android, deprecated since 15",
            fixed_shapes=True,
        ),
    )
}

# where files made for "cpu" are run too: a CPU with int8 dot products and matrix products, and one with neither; both
# without matrix tiles (SME), which few phones and servers have and with which float32 takes kernels of its own
EMULATED: dict[str, Target] = {
    name: Target(name, CPU_PROVIDER, arm64(model), CPU.precisions, home, emulated=True)
    for name, model, home in (
        ("cpu@arm64", "max,sme=off", "64-bit ARM with dotprod and i8mm, emulated"),
        ("cpu@arm64-v8", "cortex-a72", "64-bit ARM without either, emulated"),
    )
}
PLACES = ChainMap(EMULATED, TARGETS)  # listed from the last to the first


def target_named(name: str) -> Target:
    """The target or emulated place of that name. Raises ProviderError for any other, naming the nearest."""
    if name not in PLACES:
        near = difflib.get_close_matches(name, PLACES, 1)
        meant = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(PLACES)}"
        raise ProviderError(f"no target {name!r}: {meant}")
    return PLACES[name]
