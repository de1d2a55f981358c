"""Arrays come back as they were, or not at all."""

import numpy as np
import pytest

from onnxslim_bert.calibration.cache import Cache
from onnxslim_bert.zoo.store.array_cache import ArrayCache, cache_name
from onnxslim_bert.zoo.store.storage import Storage

KEY = "a" * 64
ARRAYS = {
    "/encoder/layer.0/MatMul_output_0": np.arange(15, dtype=np.float32).reshape(3, 5).T,
    "file": np.array(1.5, np.float64),
    "allow_pickle": np.zeros((0, 7), np.int8),
    "names": np.array(["a", "ünï", ""]),
    "": np.array([True, False]),
    "0": np.array([-0.0, np.nan, np.inf], np.float16),
    "big-endian": np.array([1, 2, 3], ">i4"),
}


@pytest.fixture(params=["folder", "memory"])
def storage(request, tmp_path):
    place = Storage(tmp_path if request.param == "folder" else f"memory://{tmp_path}")
    yield place
    place.delete("cache")


def test_arrays_come_back_as_they_were(storage):
    """Names, order, types, shapes and bits."""
    cache: Cache = ArrayCache(storage)
    assert cache.get(KEY) is None
    cache.put(KEY, ARRAYS)
    found = cache.get(KEY)
    assert found is not None
    assert list(found) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert (found[name].dtype.str, found[name].shape) == (array.dtype.str, array.shape)
        assert found[name].tobytes() == array.tobytes()


def test_no_arrays_are_an_entry_too(storage):
    """What was measured may be nothing."""
    ArrayCache(storage).put(KEY, {})
    assert ArrayCache(storage).get(KEY) == {}


def test_the_same_arrays_are_the_same_bytes(storage):
    """No time of writing in them."""
    for key in "bc":
        ArrayCache(storage).put(key, ARRAYS)
    assert storage.read(cache_name("b")) == storage.read(cache_name("c"))


def test_a_damaged_entry_is_none_and_can_be_put_again(storage):
    """Cut off anywhere, or with a byte changed anywhere, it is not taken for what it was."""
    cache = ArrayCache(storage)
    arrays = {"a": np.arange(50, dtype=np.float32)}
    cache.put(KEY, arrays)
    whole = storage.read(cache_name(KEY))
    assert whole
    wrong = [whole[:length] for length in range(0, len(whole), 17)]
    wrong += [whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :] for at in range(0, len(whole), 5)]
    for data in wrong:
        storage.write(cache_name(KEY), data)
        found = cache.get(KEY)
        assert found is None or np.array_equal(found["a"], arrays["a"])
    storage.write(cache_name(KEY), b"\x80\x04pickled")
    assert cache.get(KEY) is None
    cache.put(KEY, arrays)
    assert cache.get(KEY) is not None


def test_a_pickle_is_not_read(storage, tmp_path):
    """It could run anything."""
    np.savez(tmp_path / "evil.npz", names=np.array('["a"]'), **{"0": np.array([object()])})  # type: ignore[arg-type]
    storage.put(cache_name(KEY), tmp_path / "evil.npz")
    assert ArrayCache(storage).get(KEY) is None


@pytest.mark.parametrize("array", [np.array([None]), np.zeros(3, "V4"), np.zeros(3, [("x", "f4")])])
def test_what_would_come_back_as_something_else_is_refused(storage, array):
    """When it is put, not when it is missed."""
    with pytest.raises(TypeError, match="cannot be kept"):
        ArrayCache(storage).put(KEY, {"a": array})
    assert ArrayCache(storage).get(KEY) is None
