"""A toolkit that makes BERT-family ONNX models small and fast without retraining, and proves it.

What a program uses is here, imported when it is first asked for (docs/library.md).
"""

import os

__version__ = "0.1.0"

# ONNX Runtime keeps a device id in the user's cache and sends events about models, unless told before its import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_WHERE = {
    "Data": "job.data",
    "Deployment": "job.deployment",
    "Gate": "job.seal",
    "Job": "job.job",
    "Model": "model.onnx_model",
    "Quantization": "job.main_recipe",
    "Recipe": "recipes.recipe",
    "Report": "job.report",
    "SlimError": "errors",
    "Sources": "job.data",
    "Targets": "job.search.targets",
    "Working": "calibration.working",
    "canonical_form": "job.rows",
    "main_recipe": "job.main_recipe",
    "run": "job.run",
    "run_search": "job.search.run",
}
__all__ = ["__version__", *_WHERE]


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib  # here, so that the command line is at its first line at once (`__main__.py`)

    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
