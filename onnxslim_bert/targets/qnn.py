"""QNN: Qualcomm's Hexagon processors, executed on any Linux machine by the emulator that comes with the provider."""

import difflib
import re
from collections.abc import Mapping

from onnxslim_bert.errors import ProviderError
from onnxslim_bert.targets.setup import Setup, plugin_package

PROVIDER = "QNNExecutionProvider"

# Chips by `soc_model`, with the Hexagon architecture that each needs.
SOCS = {"36": "69", "43": "73", "57": "75", "60": "73", "69": "79", "87": "81"}
DEFAULT_SOC = "57"

# The provider ignores what it does not know in silence, so names are checked here
# (https://onnxruntime.ai/docs/execution-providers/QNN-ExecutionProvider.html, and the names in release 2.7).
OPTIONS = """
    soc_model htp_arch backend_path backend_type device_id vtcm_mb op_packages
    profiling_level profiling_file_path rpc_control_latency rpc_polling_time qnn_context_priority
    htp_performance_mode htp_graph_finalization_optimization_mode htp_bf16_enable offload_graph_io_quantization
    enable_htp_fp16_precision enable_htp_spill_fill_buffer enable_htp_shared_memory_allocator
    enable_htp_graph_splitting enable_htp_fp16_clamp_overflow dump_json_qnn_graph json_qnn_graph_dir
    skip_backend_op_validation qnn_saver_path qnn_ir_backend_path
""".split()  # noqa: SIM905

# What the verbose log holds of a node that is left (LogNodeSupport in the provider's qnn_execution_provider.cc).
REFUSED = re.compile(
    r"LogNodeSupport\] Validation FAILED.*\n(?P<nodes>(?:\s*Operator type:.*\n)+)\s*REASON : (?P<reason>.*)"
)
NAME = re.compile(r"Node name: (.*?) Node index:")
BACKEND = re.compile(r"CreateQnnNode\] (.*)")
OVERALL = re.compile(r"\[([EW]):.*?GetCapability\w*\] (.*)")
COLOUR = re.compile(r"\x1b\[[\d;]*m")
NOT_ASSIGNED = re.compile(r"(?<=\.)\w+ node `.*?` will not be assigned to QNN EP\.?$")


def qnn(options: Mapping[str, str], threads: int) -> Setup:
    """The HTP backend for one chip, 57 (v75) by default. The emulator chooses its threads itself.

    Raises ProviderError for a chip or an option that is not known, or when the provider is not installed.
    """
    unknown = [name for name in options if name not in OPTIONS]
    if unknown:
        near = difflib.get_close_matches(unknown[0], OPTIONS, 1)
        raise ProviderError(f"qnn has no option '{unknown[0]}'{f', did you mean {near[0]}?' if near else ''}")
    soc = options.get("soc_model", DEFAULT_SOC)
    arch = options.get("htp_arch", SOCS.get(soc))
    if arch is None or SOCS.get(soc, arch) != arch:
        known = ", ".join(f"{soc} (v{arch})" for soc, arch in SOCS.items())
        raise ProviderError(f"qnn does not know soc_model={soc} with htp_arch={arch}: it knows {known}")
    package = plugin_package("onnxruntime_qnn", "qnn")
    # Quantizing inputs and outputs is the provider's work too: what is left to the CPU is then a fallback.
    own = {"soc_model": soc, "htp_arch": arch, "offload_graph_io_quantization": "0"}
    if "backend_type" not in options:
        own["backend_path"] = package.get_qnn_htp_path()
    return Setup(PROVIDER, package.get_library_path(), options={**own, **options})


def qnn_reasons(log: str) -> tuple[Mapping[str, str], str]:
    """Why QNN left each node, by the node's name, and what it said of the whole graph, from a verbose log.

    A reason is the provider's, less words that explain nothing, and then what QNN's backend said of the node; in the
    log that stands in front of it.
    """
    log = COLOUR.sub("", log)
    by_node: dict[str, str] = {}
    for refused in REFUSED.finditer(log):
        before = max(0, log.rfind("LogNodeSupport", 0, refused.start()))
        backend = BACKEND.findall(log, before, refused.start())
        reason = NOT_ASSIGNED.sub("", refused["reason"]).strip()
        by_node |= dict.fromkeys(NAME.findall(refused["nodes"]), " ".join([reason, *backend[-1:]]))
    return by_node, min(OVERALL.findall(log), key=lambda found: str(found[0]), default=("", ""))[1]  # errors first
