"""ONNX's LSTM in PyTorch: https://onnx.ai/onnx/operators/onnx__LSTM.html"""

import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

PARTS = (0, 2, 3, 1)  # ONNX has the gates in the order i, o, f, c; PyTorch in the order i, f, c, o


def lstm(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    lengths: Tensor | None = None,
    *,
    hidden_size: int,
    direction: str = "forward",
) -> tuple[Tensor, Tensor, Tensor]:
    """Every state [seq, directions, batch, hidden], and the last hidden and cell states [directions, batch, hidden].

    x: [seq, batch, width]. w, r, b: [directions, 4 * hidden, width], [directions, 4 * hidden, hidden] and
    [directions, 8 * hidden]. lengths: steps that each row of the batch has; None for all of them.
    """
    if direction == "reverse":
        raise NotImplementedError("direction 'reverse'")
    seq, batch, width = x.shape
    module = torch.nn.LSTM(width, hidden_size, bidirectional=direction == "bidirectional", device="meta")
    weights: dict[str, Tensor] = {}
    for number, suffix in enumerate(("", "_reverse")[: len(w)]):
        biases = torch.zeros(8 * hidden_size, dtype=x.dtype) if b is None else b[number]
        given = {"weight_ih": w[number], "weight_hh": r[number]}
        given |= dict(zip(("bias_ih", "bias_hh"), biases.chunk(2), strict=True))
        weights |= {f"{name}_l0{suffix}": _reordered(values) for name, values in given.items()}
    steps = torch.full((batch,), seq) if lengths is None else lengths.long()
    packed = pack_padded_sequence(x, steps, enforce_sorted=False)
    with torch.autocast("cpu", enabled=False):
        states, (last, cells) = torch.func.functional_call(module, weights, (packed,))
    unpacked, _ = pad_packed_sequence(states, total_length=seq)
    return unpacked.unflatten(-1, (len(w), hidden_size)).transpose(1, 2), last, cells


def _reordered(gates: Tensor) -> Tensor:
    """Weights of four gates [4 * hidden, ...] in PyTorch's order."""
    parts = gates.chunk(4)
    return torch.cat([parts[i] for i in PARTS])
