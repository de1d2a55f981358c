"""`onnxslim explain`: where a model's nodes run on a target, and why not."""

import json
from pathlib import Path

import click

from onnxslim_bert.cli.options import COUNT, TARGETS, ModelFile
from onnxslim_bert.cli.screen import echo_text


@click.command(epilog="Exit code 5 when the target is not installed.")
@click.argument("model", type=ModelFile())
@click.option("--target", required=True, type=click.Choice(TARGETS), help="Which provider is asked.")
@click.option("--seq", type=COUNT, help="Ask about this many tokens where the inputs' dimensions are open.")
@click.option("--batch", type=COUNT, default=1, show_default=True, help="With --seq: rows.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
def explain(model: Path, target: str, seq: int | None, batch: int, as_json: bool) -> None:
    """Print which nodes of MODEL run on a target, and why the others do not, with the pass that mends it.

    cpu, openvino and qnn are executed here. CoreML and NNAPI are not: what they take is predicted by the rules that
    ONNX Runtime publishes, and labelled so.

    \b
    onnxslim explain model.onnx --target qnn --seq 64
    onnxslim explain model.onnx --target nnapi --seq 64 --json
    """
    from onnxslim_bert.cli.options import refuse_ignored
    from onnxslim_bert.targets.explain import describe
    from onnxslim_bert.targets.explain import explain as run_explain

    if seq is None:
        refuse_ignored(["batch"], "without --seq")
    result = run_explain(model, target, batch=batch, seq=seq)
    echo_text(json.dumps(result.to_json(), indent=2, allow_nan=False) if as_json else describe(result))
