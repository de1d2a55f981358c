"""onnxsim's structured pruning and its ridge refit, given their best chance.

    python structure_peer.py JOB CUT

JOB: a `peers.Job`, CUT: a `Cut`, both as JSON. Needs `pip install onnxsim==0.8.1`.

The source is a graph that `fuse` wrote: of plain exports it finds no heads and no feed-forward layers. Units are ranked
by weights and activations, and every matrix is refitted on the same rows as ours. The rows go in batches of one length,
for it counts padding as text.
"""

import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from peers import Job, calibration
from structure_cases import Cut

from onnxslim_bert.arrays import Array
from onnxslim_bert.graph.probe import constant, producer
from onnxslim_bert.model.onnx_model import Model

Feeds = dict[str, Array]


def main(job: Job, cut: Cut) -> None:
    """Write what the peer makes of the job's source."""
    import onnxsim  # type: ignore[import-not-found,unused-ignore]

    source = with_biases_inside(Model.load(Path(job.source)))
    rows = batches_of_one_length(job)
    pruned = source
    if cut.layers:  # attention and feed-forward are blocks of their own
        pruned = onnxsim.apply_transformer_block_pruning(pruned, rows, num_blocks_to_drop=2 * cut.layers)
    if cut.heads:
        pruned = onnxsim.apply_attention_head_wanda_pruning(pruned, rows, sparsity=cut.heads)
    if cut.neurons:
        pruned = onnxsim.apply_structured_wanda_pruning(pruned, rows, sparsity=cut.neurons)
    if sizes(pruned) == sizes(source):
        sys.exit("does nothing: no unit was found")  # and the refit takes minutes
    onnx.save(onnxsim.apply_pruning_finetune(source, pruned, rows), job.output)


def sizes(model: onnx.ModelProto) -> list[list[int]]:
    """The shapes of the model's weights, and the number of its nodes."""
    return [[len(model.graph.node)], *(list(weight.dims) for weight in model.graph.initializer)]


def with_biases_inside(model: Model) -> onnx.ModelProto:
    """The model with the biases of query, key and value inside attention: behind an `Add` no heads are found."""
    for node in model.graph.nodes:
        if node.op != "MultiHeadAttention":
            continue
        sums = [producer(tensor) for tensor in node.inputs[:3]]
        operands = [split_constant(add.inputs) for add in sums if add is not None and add.op == "Add"]
        if len(operands) == 3:
            for position, (tensor, _) in enumerate(operands):
                node.inputs[position] = tensor
            node.inputs[3] = gs.Constant(f"{node.name}/bias", np.concatenate([bias for _, bias in operands]))
    model.changed()
    return model.proto()


def split_constant(operands: Sequence[gs.Tensor]) -> tuple[gs.Tensor, Array]:
    """The activation and the bias of a sum."""
    first, second = operands
    bias = constant(second)
    return (second, first.values) if bias is None else (first, bias)


def batches_of_one_length(job: Job) -> list[Feeds]:
    """The calibration rows as model inputs [rows, length], one batch for each length that occurs."""
    found: defaultdict[int, list[Feeds]] = defaultdict(list)
    for batch in calibration(Path(job.source), job):
        found[batch.mask.shape[1]].append(batch.feeds)
    return [{name: np.concatenate([row[name] for row in rows]) for name in rows[0]} for rows in found.values()]


if __name__ == "__main__":
    main(Job(**json.loads(sys.argv[1])), Cut(**json.loads(sys.argv[2])))
