"""How much each encoder layer suffers from int8, measured on rows that nothing is fitted to."""

from dataclasses import dataclass

from onnxslim_bert.errors import PassError
from onnxslim_bert.job.search.precisions import Int8Trials
from onnxslim_bert.job.search.tables import before_int8, best_static, showing
from onnxslim_bert.model.layer_sets import layer_groups
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.rewriting.trials import Trials

MOST = 24  # layers that are tried one by one: each takes two models, made and run
STAGE = "measuring layers"


@dataclass(frozen=True)
class LayerSensitivity:
    """How much int8 in one encoder layer damages the outputs, |difference| / |original| on held-back calibration rows.

    alone: the damage when this layer is int8 and all others float. spared: the damage when this layer is float and all
    others int8. Layers that share a matrix are int8 or float together, and have the same values.
    """

    layer: int
    alone: float
    spared: float


def layer_sensitivities(model: Model, trials: Trials) -> tuple[LayerSensitivity, ...]:
    """The sensitivity of every layer, in their order, with the range method that is best for the whole.

    model: canonicalized and fused. The few dense layers outside of the encoder's, such as a pooler, are int8 in every
    trial; embedding tables are when a layer is spared. Raises PassError, with the reason, for a model whose layers
    cannot be told apart or are too many, and for one that is no float32 model.
    """
    groups = layer_groups(model)
    every = [layer for group in groups for layer in group]
    if len(groups) < 2:
        raise PassError(f"all {len(every)} layers share their matrices or there is one: none can be int8 alone")
    if len(groups) > MOST:
        raise PassError(f"{len(every)} layers: at most {MOST} are tried one by one")
    float_model = before_int8(model, trials)
    int8 = Int8Trials.of(float_model, best_static(float_model, showing(trials)), trials)
    found = []
    for done, group in enumerate(groups, start=1):
        alone = int8.damage([layer for layer in every if layer not in group], tables=False)
        spared = int8.damage(group)
        found += [LayerSensitivity(layer, alone, spared) for layer in group]
        trials.progress(STAGE, done, len(groups))
    return tuple(sorted(found, key=lambda one: one.layer))
