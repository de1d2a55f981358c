"""Training a quantized model layer by layer: each is to leave what the teacher's layer leaves."""

from collections.abc import Iterable, Mapping, Sequence
from math import ceil

import numpy as np
import torch
from torch import Tensor

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.batches import Batch
from onnxslim_bert.errors import PassError
from onnxslim_bert.graph.probe import nodes_between
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.progress import Progress
from onnxslim_bert.rewriting.distillation.bfloat16 import products_in_bfloat16
from onnxslim_bert.rewriting.distillation.executor import Executor
from onnxslim_bert.rewriting.distillation.layers import layer_pairs
from onnxslim_bert.rewriting.distillation.plan import DistillationPlan
from onnxslim_bert.rewriting.distillation.quantized_weights import quantized_weights
from onnxslim_bert.rewriting.distillation.texts import Texts
from onnxslim_bert.rewriting.distillation.training import rate_at
from onnxslim_bert.rewriting.distillation.weights import trainable

ROOM = 256e6  # bytes of what a layer leaves for all texts, the student's and the teacher's each
ROUNDED = 1e-3  # share of the variance: products in bfloat16 hide nothing of a larger error

Feeds = Mapping[str, Array]


def fit_layers(
    student: Model, teacher: Model, texts: Texts, plan: DistillationPlan, progress: Progress
) -> dict[str, Array]:
    """What the weights of the layers of `student` become, by name; `student` stays as it is.

    First to last, a layer reads what those before it, trained already, leave, and is trained to leave what the
    teacher's leaves: the squared error over tokens becomes small. Its integers and scales, biases and norms are moved,
    which for the integers is to learn how each is rounded; a weight that layers share is trained in the first. What was
    trained is what is returned. A layer of one token is compared with the teacher's first. Each layer sees as many
    texts as ROOM holds `plan.layer_epochs` times.

    Raises PassError where the ends of layers are not found, and for a layer of other sizes than the teacher's.

    Li et al. 2021, https://arxiv.org/abs/2102.05426 (BRECQ); Bai et al. 2022, https://arxiv.org/abs/2109.15082
    (modules); Chen et al. 2024, https://arxiv.org/abs/2407.11062 (EfficientQAT: all of a block is trained)
    """
    pairs = layer_pairs(student, teacher)
    if not pairs:
        raise PassError("distill: layer-epochs needs layers, whose ends were not found in this model; leave it out")
    student, whole = student.clone(), Executor(teacher)
    quantized, plain = quantized_weights(student), trainable(student)
    batches = _first(texts.epoch(np.random.default_rng(plan.seed)), student.encoder.hidden)
    longest = int(np.argmax([batch.mask.shape[1] for batch in batches]))
    ours: list[Feeds] = [batch.feeds for batch in batches]
    theirs, fitted = ours, dict[str, Array]()
    for number, (mine, other) in enumerate(pairs):
        inside = _constants(student, ours[0], mine) - fitted.keys()
        integers = {name: make for name, make in quantized.items() if name in inside}
        layer = Executor(student, [name for name in plain if name in inside and name not in quantized], integers)
        targets = _left(whole, theirs, other)
        wanted = _comparable(targets, longest, _left(layer, [ours[longest]], mine)[0], number)
        said = f"distilling: layer {number + 1} of {len(pairs)}"
        lessons = [*zip(ours, wanted, (batch.mask for batch in batches), strict=True)]
        if layer.parameters:
            _fit(layer, mine, lessons, plan, said, progress)
        for name, values in layer.trained().items():
            fitted[name] = values
            student.replace(name, values)
        ours = [batch.feeds | {mine: left} for batch, left in zip(batches, _left(layer, ours, mine), strict=True)]
        theirs = [batch.feeds | {other: left} for batch, left in zip(batches, targets, strict=True)]
    return fitted


def _first(batches: Iterable[Batch], hidden: int) -> list[Batch]:
    """The batches whose states, float32 [batch, seq, hidden], there is room for; at least one."""
    taken, room = list[Batch](), ROOM
    for batch in batches:
        room -= batch.mask.size * hidden * 4
        if taken and room < 0:
            break
        taken.append(batch)
    return taken


def _constants(model: Model, given: Iterable[str], target: str) -> set[str]:
    """The names of what the nodes from `given` to `target` read."""
    tensors = model.graph.tensors()
    nodes = nodes_between([tensors[name] for name in given], tensors[target])
    return {tensor.name for node in nodes for tensor in node.inputs}


def _left(executor: Executor, feeds: Sequence[Feeds], tensor: str) -> list[Array]:
    """The values of `tensor` for each batch, [batch, seq, hidden]."""
    with torch.no_grad():
        return [executor.run(each, [tensor])[0].numpy() for each in feeds]


def _comparable(targets: Sequence[Array], longest: int, ours: Array, number: int) -> list[Array]:
    """`targets`, of each the first token where `ours` is of one. Raises PassError where sizes differ still.

    ours: what the layer leaves for the batch `longest`.
    """
    cut = [values[:, :1] if ours.shape[1] == 1 else values for values in targets]
    if ours.shape != cut[longest].shape:
        found, needed = list(ours.shape), list(cut[longest].shape)
        raise PassError(
            f"distill: layer {number} leaves {found}, the teacher's {needed}, so layer-epochs cannot compare them; "
            "leave it out"
        )
    return cut


def _fit(
    layer: Executor,
    tensor: str,
    lessons: Sequence[tuple[Feeds, Array, Array]],
    plan: DistillationPlan,
    said: str,
    progress: Progress,
) -> None:
    """Move the parameters of `layer` until `tensor` is near its targets.

    lessons: batches, each as what goes in, the target [batch, seq, hidden] and which tokens are real, [batch, seq].
    """
    wanted = [_real(torch.from_numpy(target), mask) for _, target, mask in lessons]
    spread = float(torch.cat(wanted).var(0).mean())
    groups = [{"params": [parameter], "peak": layer.rates[name]} for name, parameter in layer.parameters.items()]
    optimizer = torch.optim.Adam(groups, lr=0.0, fused=True)
    rng, steps = np.random.default_rng(plan.seed), max(round(plan.layer_epochs * len(lessons)), 1)
    order = np.concatenate([rng.permutation(len(lessons)) for _ in range(ceil(steps / len(lessons)))])
    loss = torch.zeros(())
    for step, place in enumerate(order[:steps].tolist()):
        feeds, _, mask = lessons[place]
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step / steps, group["peak"])
        with products_in_bfloat16(wanted=float(loss) > ROUNDED):
            left = layer.run(feeds, [tensor])[0]
        loss = (_real(left.float(), mask) - wanted[place]).square().mean() / spread
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss = loss.detach()
        progress(f"{said}, error {float(loss):.3g}", step + 1, steps)


def _real(states: Tensor, mask: Array) -> Tensor:
    """The states [tokens, hidden] of tokens that are no padding; of one token a text, all."""
    return states[torch.from_numpy(mask)] if states.shape[1] == mask.shape[1] else states.flatten(0, 1)
