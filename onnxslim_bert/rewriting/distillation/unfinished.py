"""A training that was interrupted goes on where it was last judged, as if nothing had happened."""

from collections.abc import Mapping

import numpy as np
import torch

from onnxslim_bert.arrays import Array

MOMENTS = ("exp_avg", "exp_avg_sq")  # what AdamW remembers of each parameter


def moments_of(optimizer: torch.optim.Optimizer) -> dict[str, Array]:
    """The parameters of `optimizer`, and what it remembers of them: views that the next step changes."""
    state: dict[str, Array] = {}
    for i, parameter in enumerate(_parameters(optimizer)):
        state[f"parameter/{i}"] = parameter.detach().numpy()
        state |= {f"{moment}/{i}": optimizer.state[parameter][moment].numpy() for moment in (*MOMENTS, "step")}
    return state


def take_up(optimizer: torch.optim.Optimizer, state: Mapping[str, Array]) -> None:
    """Give the parameters of `optimizer`, and what it remembers of them, the values that `state` holds."""
    with torch.no_grad():
        for i, parameter in enumerate(_parameters(optimizer)):
            parameter.copy_(torch.from_numpy(np.asarray(state[f"parameter/{i}"])))
            optimizer.state[parameter]["step"] = torch.from_numpy(np.array(state[f"step/{i}"]))
            for moment in MOMENTS:  # in the parameter's own memory layout, by which AdamW pairs their entries
                values = torch.from_numpy(np.asarray(state[f"{moment}/{i}"]))
                optimizer.state[parameter][moment] = torch.empty_like(parameter).copy_(values)


def _parameters(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
