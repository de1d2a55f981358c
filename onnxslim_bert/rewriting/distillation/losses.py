"""How far a student is from its teacher, as numbers that have gradients.

`real` [batch, seq] is True where there is a token; values of padding never count.
"""

import torch
from torch import Tensor
from torch.nn import functional


def squared_error(ours: Tensor, theirs: Tensor, spread: float) -> Tensor:
    """The mean of the squared differences, as a share of `spread`, the teacher's variance."""
    return (_wide(ours) - theirs).square().mean() / spread


def divergence(ours: Tensor, theirs: Tensor, temperature: float) -> Tensor:
    """How far the classes' chances are apart: logits [rows, classes] each.

    The Kullback-Leibler divergence of softmax(logits / temperature), times temperature squared, so that its gradient
    stays as large. Hinton et al. 2015, https://arxiv.org/abs/1503.02531
    """
    ours, theirs = (torch.log_softmax(_wide(logits) / temperature, -1) for logits in (ours, theirs))
    return functional.kl_div(ours, theirs, reduction="batchmean", log_target=True) * temperature**2


def relations(ours: Tensor, theirs: Tensor, real: Tensor, heads: int) -> Tensor:
    """How far it is apart which tokens are alike: ours [batch, seq, width], theirs [batch, seq, another width].

    In each of `heads` parts of the width, softmax(x x^T / sqrt(part)) over the real tokens; the divergence of ours from
    the teacher's, averaged over real tokens and heads. Works for queries, keys and values, whatever the numbers of
    attention heads. Wang et al. 2021 (MiniLMv2), https://arxiv.org/abs/2012.15828
    """

    def alike(x: Tensor) -> Tensor:
        parts = _wide(x).unflatten(-1, (heads, -1)).transpose(1, 2)
        scores = parts @ parts.mT / parts.shape[-1] ** 0.5
        return scores.masked_fill(~real[:, None, None], -1e4).log_softmax(-1)

    apart = functional.kl_div(alike(ours), alike(theirs), reduction="none", log_target=True).sum(-1)
    return apart.transpose(1, 2)[real].mean()


def likenesses(ours: Tensor, theirs: Tensor) -> Tensor:
    """How far it is apart which texts of a batch are alike: vectors [texts, width] each, compared by cosine.

    Tung and Mori 2019, https://arxiv.org/abs/1907.09682
    """
    mine, other = (functional.normalize(_wide(vectors), dim=-1) for vectors in (ours, theirs))
    return (mine @ mine.T - other @ other.T).square().mean()


def mean_vectors(vectors: Tensor, real: Tensor) -> Tensor:
    """The mean over the real tokens of each text: [batch, seq, width] -> [batch, width]."""
    shares = real / real.sum(1, keepdim=True).clamp(min=1)
    return (shares.unsqueeze(1).to(vectors.dtype) @ vectors).squeeze(1)


def labelled(ours: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of logits [texts, classes] with classes; squared error of [texts, 1] with scores."""
    if labels.is_floating_point():
        return (_wide(ours).squeeze(-1) - labels).square().mean()
    return functional.cross_entropy(_wide(ours), labels)


def _wide(x: Tensor) -> Tensor:
    """bfloat16 as float32: its sums lose too much."""
    return x.float() if x.dtype == torch.bfloat16 else x
