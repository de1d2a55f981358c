"""Statistics gathered batch by batch are those of all rows at once, in a state that does not grow."""

import numpy as np
import pytest

from onnxslim_bert.calibration.observers import BINS, MOMENTUM, OBSERVERS, SAMPLE_ROWS, Range

SIZES = (7, 1, 130, 3, 64, 2, 513, 29)  # rows of ragged batches
CHANNELS = 5


def stream(seed: int = 0, scale: float = 1.0) -> list[np.ndarray]:
    """Batches of rows, each with a range of its own, the later ones wider."""
    rng = np.random.default_rng(seed)
    return [
        (rng.normal(rng.normal(), scale * (1 + i), (size, CHANNELS))).astype(np.float32) for i, size in enumerate(SIZES)
    ]


def observed(kind: str, batches: list[np.ndarray]):
    observer = OBSERVERS[kind]()
    for rows in batches:
        observer.update(rows)
    return observer.result()


def test_minmax_is_that_of_all_rows():
    rows = np.concatenate(stream())
    assert observed("minmax", stream()) == Range(float(rows.min()), float(rows.max()))


def test_channel_range_is_that_of_all_rows():
    rows = np.concatenate(stream())
    np.testing.assert_array_equal(observed("channel-range", stream()), [rows.min(0), rows.max(0)])


def test_moving_average_weighs_each_batch_s_range():
    """The first batch starts it; each later one counts 1 - MOMENTUM."""
    batches = stream()
    low, high = float(batches[0].min()), float(batches[0].max())
    for rows in batches[1:]:
        low = MOMENTUM * low + (1 - MOMENTUM) * float(rows.min())
        high = MOMENTUM * high + (1 - MOMENTUM) * float(rows.max())
    assert observed("moving-average", batches) == Range(pytest.approx(low), pytest.approx(high))


# histogram


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_a_histogram_drops_no_value(seed, scale):
    """Every value lies in a bin, wherever the range had to grow; counted by numpy on the same edges, near enough."""
    batches = stream(seed, scale)
    values = np.concatenate(batches).ravel()
    histogram = observed("histogram", batches)
    assert histogram.counts.sum() == values.size
    assert histogram.low <= values.min()
    assert values.max() <= histogram.high
    exact, edges = np.histogram(values, BINS, (histogram.low, histogram.high))
    width = float(edges[1] - edges[0])
    assert np.abs(np.cumsum(exact) - np.cumsum(histogram.counts)).max() <= 0.005 * values.size
    mean = np.dot(histogram.counts, edges[:-1] + width / 2) / values.size
    assert mean == pytest.approx(float(values.mean()), abs=width)


@pytest.mark.parametrize("order", [1, -1])
def test_a_histogram_grows_to_either_side(order):
    """Batches that rise, and batches that fall, by a factor of a thousand."""
    batches = [np.full((3, CHANNELS), order * value, np.float32) for value in (0, 1, -1, 10, 1000, -1000)]
    histogram = observed("histogram", batches)
    assert histogram.counts.sum() == 6 * 3 * CHANNELS
    edges = np.linspace(histogram.low, histogram.high, BINS + 1)
    for value in (-1000, 1000):
        place = int(np.searchsorted(edges, value, side="right")) - 1
        assert histogram.counts[max(place - 1, 0) : place + 2].sum() == 3 * CHANNELS


def test_a_histogram_does_not_grow_more_than_it_must():
    """One batch: its own range."""
    rows = np.linspace(-3, 5, 1000, dtype=np.float32)[:, None]
    histogram = observed("histogram", [rows])
    assert (histogram.low, histogram.high) == (pytest.approx(-3, abs=0.01), pytest.approx(5, abs=0.01))


@pytest.mark.parametrize("value", [0.0, 5.0, -1e-30, 3e30])
def test_a_constant_has_a_histogram(value):
    rows = np.full((7, CHANNELS), value, np.float32)
    histogram = observed("histogram", [rows, rows])
    assert histogram.counts.sum() == 14 * CHANNELS
    assert histogram.low <= rows[0, 0] <= histogram.high


# sample


def test_a_sample_of_few_rows_is_all_of_them():
    rows = np.concatenate(stream()[:5])
    assert len(rows) < SAMPLE_ROWS
    np.testing.assert_array_equal(observed("sample", stream()[:5]), rows)


def test_a_sample_holds_rows_as_they_came():
    rows, sample = np.concatenate(stream()), observed("sample", stream())
    assert sample.shape == (SAMPLE_ROWS, CHANNELS)
    assert {row.tobytes() for row in sample} <= {row.tobytes() for row in rows}


@pytest.mark.parametrize(("count", "size"), [(1_500, 37), (20_000, 1), (20_000, 5_000)])
def test_a_sample_is_uniform(count, size):
    """Row numbers are sampled: their distribution differs from the uniform one by less than Kolmogorov's 1 per cent."""
    numbers = np.arange(count, dtype=np.float32)[:, None]
    sample = np.sort(observed("sample", [numbers[i : i + size] for i in range(0, count, size)])[:, 0])
    assert len(set(sample.tolist())) == SAMPLE_ROWS
    expected = (np.arange(SAMPLE_ROWS) + 0.5) / SAMPLE_ROWS
    assert np.abs(sample / count - expected).max() < 1.63 / np.sqrt(SAMPLE_ROWS)


def test_tensors_sampled_alike_give_the_same_rows():
    """Two tensors of the same tokens: their samples are of the same tokens."""
    batches = stream()
    np.testing.assert_array_equal(observed("sample", [2 * rows for rows in batches]), 2 * observed("sample", batches))


# moments and counts


def test_second_moments_are_those_of_all_rows():
    rows = np.concatenate(stream()).astype(np.float64)
    gram = observed("gram", stream())
    np.testing.assert_allclose(gram.products, rows.T @ rows, rtol=1e-4, atol=1e-2)
    np.testing.assert_allclose(gram.sums, rows.sum(0), rtol=1e-5)
    assert gram.rows == len(rows)
    np.testing.assert_allclose(observed("square", stream()), np.square(rows).mean(0), rtol=1e-5)


def test_ids_are_counted_over_batches_of_any_range():
    assert observed("counts", [np.array([1, 3, 1]), np.array([5]), np.array([0])]).tolist() == [1, 2, 0, 1, 0, 1]
    assert observed("counts", []).tolist() == []


# state


def rows_for(kind: str, count: int) -> np.ndarray:
    """Rows that an observer takes: ids for the one that counts them, else activations."""
    rng = np.random.default_rng(0)
    if kind == "counts":
        return rng.integers(0, 19, count)
    return rng.normal(size=(count, CHANNELS)).astype(np.float32)


@pytest.mark.parametrize("kind", OBSERVERS)
def test_the_state_does_not_grow_with_the_rows(kind):
    """As many bytes after a hundred thousand rows as after a thousand, and no view of a batch among them."""
    observer, batch = OBSERVERS[kind](), rows_for(kind, 1000)
    sizes = []
    for _ in range(100):
        rows = batch.copy()
        observer.update(rows)
        arrays = [value for value in vars(observer).values() if isinstance(value, np.ndarray)]
        assert not any(np.shares_memory(array, rows) for array in arrays)
        sizes.append(sum(array.nbytes for array in arrays))
    assert len(set(sizes)) == 1


@pytest.mark.parametrize("kind", OBSERVERS)
def test_rows_are_not_edited(kind):
    rows = rows_for(kind, 700)
    before = rows.copy()
    OBSERVERS[kind]().update(rows)
    np.testing.assert_array_equal(rows, before)


def test_a_histogram_of_nothing_is_refused():
    with pytest.raises(ValueError, match="no rows were seen"):
        observed("histogram", [])
