"""Each loss by hand, on small numbers."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'onnxslim-bert[distill]'")

from onnxslim_bert.rewriting.distillation import losses  # noqa: E402


def tensor(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def softmax(x):
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def test_squared_error_is_a_share_of_the_spread():
    assert losses.squared_error(torch.tensor([1.0, 4.0]), torch.tensor([2.0, 2.0]), 10.0) == pytest.approx(0.25)


def test_divergence_by_hand():
    """sum p (log p - log q) of softened chances, averaged over rows, times temperature squared."""
    ours, theirs, temperature = tensor(5, 3), tensor(5, 3, seed=1), 2.0
    q, p = softmax(ours.numpy() / temperature), softmax(theirs.numpy() / temperature)
    expected = (p * np.log(p / q)).sum(1).mean() * temperature**2
    assert losses.divergence(ours, theirs, temperature) == pytest.approx(expected, rel=1e-5)


def test_relations_by_hand():
    """One text of 3 tokens and one of 2; the student is half as wide as the teacher; 2 parts each."""
    ours, theirs = tensor(2, 3, 4), tensor(2, 3, 8, seed=1)
    real = torch.tensor([[True, True, True], [True, True, False]])
    found = []
    for text, length in ((0, 3), (1, 2)):
        for part in range(2):
            mine = ours[text, :length, 2 * part : 2 * part + 2].numpy()
            other = theirs[text, :length, 4 * part : 4 * part + 4].numpy()
            q, p = softmax(mine @ mine.T / np.sqrt(2)), softmax(other @ other.T / np.sqrt(4))
            found += (p * np.log(p / q)).sum(1).tolist()
    assert len(found) == 2 * 5
    assert losses.relations(ours, theirs, real, 2) == pytest.approx(np.mean(found), rel=1e-5)


def test_relations_do_not_read_padding():
    ours, theirs = tensor(1, 4, 6), tensor(1, 4, 6, seed=1)
    real = torch.tensor([[True, True, True, False]])
    other = ours.clone()
    other[:, 3] = 7.0
    assert losses.relations(ours, theirs, real, 3) == losses.relations(other, theirs, real, 3)


def test_likenesses_do_not_depend_on_length_and_are_by_hand():
    ours, theirs = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[3.0, 0.0], [4.0, 0.0]])
    assert losses.likenesses(ours, theirs) == pytest.approx(0.5)  # two of four cosines are 0 instead of 1
    assert losses.likenesses(5 * ours, theirs) == pytest.approx(0.5)


def test_labels_are_classes_or_scores():
    logits = torch.tensor([[0.0, np.log(3.0)]])
    assert losses.labelled(logits, torch.tensor([1])) == pytest.approx(-np.log(0.75))
    assert losses.labelled(torch.tensor([[1.0], [2.0]]), torch.tensor([1.0, 4.0])) == pytest.approx(2.0)


@pytest.mark.parametrize("seed", [1, 2])
def test_what_is_equal_has_loss_0_and_no_gradient(seed):
    theirs = tensor(3, 4, 6, seed=seed)
    ours = theirs.clone().requires_grad_()
    real = torch.ones(3, 4, dtype=torch.bool)
    total = (
        losses.squared_error(ours, theirs, 1.0)
        + losses.divergence(ours[:, 0], theirs[:, 0], 2.0)
        + losses.relations(ours, theirs, real, 2)
        + losses.likenesses(ours[:, 1], theirs[:, 1])
    )
    total.backward()
    assert float(total.detach()) == pytest.approx(0, abs=1e-6)
    assert float(ours.grad.abs().max()) < 1e-6
