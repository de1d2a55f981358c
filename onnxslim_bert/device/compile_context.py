"""Compile a model for a chip ahead of time, and prove that what was written answers the same."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

from onnxslim_bert.arrays import Array
from onnxslim_bert.errors import OutputError, ProviderError
from onnxslim_bert.graph.files import check_output, model_files, staging
from onnxslim_bert.graph.naming import give_names
from onnxslim_bert.graph.native_path import check_utf8
from onnxslim_bert.graph.sessions import run
from onnxslim_bert.graph.signature import input_dtypes
from onnxslim_bert.recipes.provenance import MEASURED, forget
from onnxslim_bert.targets.placement import Placement
from onnxslim_bert.targets.qnn import SOCS
from onnxslim_bert.targets.session import open_on
from onnxslim_bert.targets.setup import Setup
from onnxslim_bert.targets.target import Target

COMPILERS = ("qnn",)  # the targets that write context binaries here
CONTEXT = ".ctx.onnx"


@dataclass(frozen=True)
class Compiled:
    """A written context binary: what a provider compiled for one chip, in an ONNX file of one EPContext node.

    soc: the chip's number, arch: its architecture. nbytes: of the file. placement: where the model's nodes run.
    """

    path: Path
    soc: str
    arch: str
    nbytes: int
    placement: Placement


def compile_contexts(
    source: Path, outputs: Mapping[str, Path], target: Target, *, overwrite: bool = False
) -> list[Compiled]:
    """Compile the model at `source` for each chip in `outputs`: {the chip's `soc_model`: the file to write}.

    Each compiled file is loaded and must answer a probe exactly as the model does on the same target, or it is not
    written. Raises ProviderError when it does not, and when the target does not compile, does not know a chip, or does
    not take every node; OutputError when a file cannot be written.

    https://onnxruntime.ai/docs/execution-providers/EP-Context-Design.html
    """
    if target.name not in COMPILERS:
        raise ProviderError(f"{target.name} compiles nothing ahead of time; {', '.join(COMPILERS)} does")
    for soc in outputs:
        target.setup({"soc_model": soc}, 1)  # a chip that is not known is refused before any work
    for output in outputs.values():
        check_output(output, overwrite=overwrite, inputs=[source])
        check_utf8(output.absolute(), target.provider, OutputError)
    return [_compile(source, output, target, soc, overwrite) for soc, output in outputs.items()]


def default_outputs(source: Path, socs: Sequence[str], output: Path | None = None) -> dict[str, Path]:
    """The file for each chip: `output`, or NAME.ctx.onnx beside the model; for several, with the chip in its name.

    Example: model.onnx for chips 43 and 57: model.soc43.ctx.onnx and model.soc57.ctx.onnx.
    """
    output = output or source.with_name(source.name.removesuffix(".onnx") + CONTEXT)
    suffix = CONTEXT if output.name.endswith(CONTEXT) else output.suffix
    stem = output.name.removesuffix(suffix)
    several = len(set(socs)) > 1
    return {soc: output.with_name(f"{stem}.soc{soc}{suffix}") if several else output for soc in socs}


def _compile(source: Path, output: Path, target: Target, soc: str, overwrite: bool) -> Compiled:
    options = {"soc_model": soc}
    session, placement = open_on(target, source, options=options)
    feeds = probe(session)
    expected = run(session, feeds)
    with staging(output) as folder:
        written = folder / output.name
        open_on(_writing(target, written), source, options=options)
        if not written.is_file():
            raise ProviderError(f"{source}: {target.name} compiled nothing for soc_model={soc}")
        _forget_measured(written)
        loaded, _ = open_on(target, written, options=options)
        if not all(map(np.array_equal, run(loaded, feeds), expected)):
            raise ProviderError(
                f"{source}: what {target.name} compiled for soc_model={soc} answers otherwise when loaded"
            )
        give_names([(written, output)], overwrite=overwrite, sources=model_files(source))
    return Compiled(output, soc, SOCS[soc], output.stat().st_size, placement)


def _forget_measured(path: Path) -> None:
    """Delete the record of what was measured of the source, which ONNX Runtime copied with the other metadata."""
    compiled = onnx.load(path)
    forget(compiled, MEASURED)
    path.write_bytes(compiled.SerializeToString(deterministic=True))


def _writing(target: Target, path: Path) -> Target:
    """A copy of `target` whose sessions write what they compile to the one file `path`."""
    entries = {"ep.context_enable": "1", "ep.context_file_path": str(path), "ep.context_embed_mode": "1"}

    def setup(options: Mapping[str, str], threads: int) -> Setup:
        plain = target.setup(options, threads)
        return replace(plain, session={**plain.session, **entries})

    return replace(target, setup=setup)


def probe(session: ort.InferenceSession) -> dict[str, Array]:
    """Feeds to try a model with: random zeros and ones in the fixed shapes of its inputs.

    These values are valid as token ids, mask and segments of any model.
    """
    rng = np.random.default_rng(0)
    dtypes = input_dtypes(session)
    return {
        tensor.name: rng.integers(0, 2, tensor.shape).astype(dtypes[tensor.name]) for tensor in session.get_inputs()
    }
