"""A session runs where it was asked to, or an error says what did not and why."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_targets import dense, half_taken, here, taking_nothing

from onnxslim_bert.errors import ModelError, ProviderError
from onnxslim_bert.targets.assignment import placement_of
from onnxslim_bert.targets.placement import Left
from onnxslim_bert.targets.places import Places
from onnxslim_bert.targets.session import explain_on, open_on
from onnxslim_bert.targets.setup import CPU_PROVIDER, Setup, attach, plugin_devices
from onnxslim_bert.targets.table import CPU, TARGETS, target_named

X = np.random.default_rng(1).normal(size=(2, 3, 8)).astype(np.float32)


def test_the_cpu_takes_everything_as_one_piece(tmp_path):
    """Its record lists nodes one by one, between which lies no transition."""
    session, placement = open_on(CPU, dense(tmp_path / "m.onnx"))
    assert (placement.provider, placement.taken, placement.total, placement.partitions) == (CPU_PROVIDER, 2, 2, 1)
    assert placement.whole
    assert session.run(None, {"x": X})[0].shape == (2, 3, 5)


def test_a_session_that_silently_runs_elsewhere_is_refused(tmp_path):
    """ONNX Runtime raises nothing and lists the provider; its record of the nodes tells."""
    idle, path = taking_nothing(), dense(tmp_path / "m.onnx")
    with pytest.raises(ProviderError, match=r"m\.onnx: idle leaves 2 of 2 nodes to the CPU: 1 MatMul \(dense: .*Relu"):
        open_on(idle, path)


def test_a_fallback_that_is_allowed_is_counted(tmp_path):
    """The session runs, and the placement says on what."""
    session, placement = open_on(taking_nothing(), dense(tmp_path / "m.onnx"), allow_fallback=True)
    assert (placement.taken, placement.total, placement.partitions, placement.share) == (0, 2, 0, 0)
    assert [(node.node, node.op) for node in placement.left] == [("dense", "MatMul"), ("relu", "Relu")]
    assert session.run(None, {"x": X})[0].shape == (2, 3, 5)


def test_what_is_open_already_is_not_opened_again(tmp_path):
    """By the same number of threads; places that keep nothing open it each time."""
    path = dense(tmp_path / "m.onnx")
    kept = Places(opened={})
    assert kept.open(CPU, path).session is kept.open(CPU, path).session
    assert kept.open(CPU, path).session is not kept.open(CPU, path, threads=2).session
    assert Places().open(CPU, path).session is not Places().open(CPU, path).session


def test_a_piece_is_a_partition_of_the_provider():
    """Two pieces of three nodes there, one node left for its own reason and one for the common one."""

    def piece(provider, *names):
        nodes = [SimpleNamespace(name=name, op_type=name[0].upper()) for name in names]
        return SimpleNamespace(ep_name=provider, get_nodes=lambda: nodes)

    pieces = [piece("P", "a", "b"), piece("CPU", "c"), piece("P", "d"), piece("CPU", "e")]
    session = SimpleNamespace(get_provider_graph_assignment_info=lambda: pieces)
    placement = placement_of(session, "P", {"c": "too wide"}, "no room")
    assert (placement.taken, placement.total, placement.partitions, placement.whole) == (3, 5, 2, False)
    assert placement.left == (Left("c", "C", "too wide"), Left("e", "E", "no room"))
    assert placement_of(session, "P").left[0].reason == "the provider gives no reason"


@pytest.mark.parametrize("name", ["cpu", "qnn"])
def test_a_file_that_is_no_model_is_nobodys_fault(tmp_path, name):
    """Not the provider's, so the exit code is another."""
    (tmp_path / "m.onnx").write_bytes(bytes(range(256)))
    with pytest.raises(ModelError, match=r"m\.onnx"):
        open_on(here(name), tmp_path / "m.onnx")


@pytest.mark.parametrize("name", ["coreml", "nnapi"])
def test_what_cannot_execute_here_names_its_home_and_the_prediction(tmp_path, name):
    """Whatever the model."""
    if not TARGETS[name].absent():
        pytest.skip("it runs here")
    with pytest.raises(ProviderError, match=rf"{name} runs on .*, not here: `onnxslim explain MODEL --target {name}`"):
        open_on(TARGETS[name], tmp_path / "m.onnx")


@pytest.mark.parametrize(("name", "module"), [("qnn", "onnxruntime_qnn"), ("openvino", "onnxruntime_ep_openvino")])
def test_what_is_not_installed_names_the_extra(monkeypatch, tmp_path, name, module):
    """As pip takes it."""
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ProviderError, match=rf"{name} is not installed: pip install 'onnxslim-bert\[{name}\]'"):
        open_on(TARGETS[name], tmp_path / "m.onnx")


def test_a_plugin_that_cannot_be_loaded_is_an_error(tmp_path):
    """With the loader's words."""
    import onnxruntime as ort

    with pytest.raises(ProviderError, match="the library of NoExecutionProvider cannot be loaded"):
        attach(ort.SessionOptions(), Setup("NoExecutionProvider", str(tmp_path / "none.so")))


def test_the_cpu_takes_only_options_that_are_known(tmp_path):
    """ONNX Runtime would take any entry and ignore it."""
    path = dense(tmp_path / "m.onnx")
    assert open_on(CPU, path, options={"session.x64quantprecision": "1"}).placement.whole
    with pytest.raises(ProviderError, match=r"cpu has no option 'session\.x64quantprecison'"):
        open_on(CPU, path, options={"session.x64quantprecison": "1"})


def test_an_unknown_target_names_the_nearest():
    """Or all of them."""
    assert target_named("qnn") is TARGETS["qnn"]
    with pytest.raises(ProviderError, match="no target 'openvno': did you mean 'openvino'"):
        target_named("openvno")
    with pytest.raises(ProviderError, match="no target 'x': there are cpu, openvino, qnn, coreml, nnapi"):
        target_named("x")


def test_openvino_takes_open_shapes_whole(tmp_path):
    """In bfloat16 by its own choice, so the answer is near and no nearer."""
    session, placement = open_on(here("openvino"), dense(tmp_path / "m.onnx", "batch", "length"))
    assert placement.whole
    exact = open_on(CPU, dense(tmp_path / "m.onnx")).session.run(None, {"x": X})[0]
    np.testing.assert_allclose(session.run(None, {"x": X})[0], exact, atol=0.1)


@pytest.mark.parametrize(("name", "value"), [("NO_SUCH_PROPERTY", "1"), ("INFERENCE_PRECISION_HINT", "f33")])
def test_openvino_refuses_a_bad_property_in_its_own_words(tmp_path, name, value):
    """Given to the provider directly it would be ignored in silence."""
    with pytest.raises(ProviderError, match=rf"m\.onnx: openvino cannot open it \(.*{name}"):
        open_on(here("openvino"), dense(tmp_path / "m.onnx"), options={name: value})


def test_qnn_takes_fixed_shapes_whole_and_prints_nothing(tmp_path, capfd):
    """Its libraries print a line on stdout, which may be promised to one JSON document."""
    session, placement = open_on(here("qnn"), dense(tmp_path / "m.onnx"))
    assert (placement.taken, placement.partitions, placement.whole) == (2, 1, True)
    exact = open_on(CPU, dense(tmp_path / "m.onnx")).session.run(None, {"x": X})[0]
    np.testing.assert_allclose(session.run(None, {"x": X})[0], exact, atol=0.02)
    assert capfd.readouterr() == ("", "")


def test_qnn_refuses_open_shapes_and_says_how_to_fix_them(tmp_path):
    """Unless sizes are given for them."""
    path = dense(tmp_path / "m.onnx", "batch", "length")
    with pytest.raises(ProviderError, match=r"qnn takes fixed shapes only, and x is \[batch, length, 8\]: .* --seq"):
        open_on(here("qnn"), path)
    session, placement = open_on(here("qnn"), path, shape=(2, 3))
    assert placement.whole
    assert session.get_inputs()[0].shape == [2, 3, 8]


def test_an_open_dimension_without_a_name_of_its_own_cannot_be_given_a_size(tmp_path):
    """One name for batch and length."""
    with pytest.raises(ModelError, match="x has no dimension of its own name for 3"):
        open_on(here("qnn"), dense(tmp_path / "m.onnx", "n", "n"), shape=(2, 3))


def test_qnn_says_why_it_leaves_a_node(tmp_path):
    """Its reason is in the verbose log only."""
    path = half_taken(tmp_path / "m.onnx")
    with pytest.raises(
        ProviderError, match=r"leaves 1 of 2 nodes to the CPU: 1 NonZero \(places: NonZero output shape"
    ):
        open_on(here("qnn"), path)
    placement = open_on(here("qnn"), path, allow_fallback=True).placement
    assert (placement.taken, placement.total, placement.partitions) == (1, 2, 1)
    assert placement == explain_on(here("qnn"), path)


def test_qnn_that_cannot_start_gives_its_reason_for_every_node(tmp_path):
    """ONNX Runtime itself opens such a session without a word."""
    with pytest.raises(ProviderError, match=r"leaves 2 of 2 nodes.*Unable to load backend.*none\.so"):
        open_on(here("qnn"), dense(tmp_path / "m.onnx"), options={"backend_path": "/none.so"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"soc_mdel": "57"}, "qnn has no option 'soc_mdel', did you mean soc_model"),
        ({"soc_model": "30"}, r"qnn does not know soc_model=30 with htp_arch=None: it knows 36 \(v69\)"),
        ({"soc_model": "57", "htp_arch": "73"}, "qnn does not know soc_model=57 with htp_arch=73"),
    ],
)
def test_qnn_options_are_checked_before_the_provider_ignores_them(tmp_path, options, message):
    """Also where it is not installed."""
    with pytest.raises(ProviderError, match=message):
        open_on(TARGETS["qnn"], tmp_path / "m.onnx", options=options)


def test_a_plugin_is_registered_once_in_a_process(tmp_path):
    """ONNX Runtime refuses a second time, sessions do not."""
    setup = here("qnn").setup({}, 1)
    first = plugin_devices(setup.provider, setup.library)
    assert len(first) == len(plugin_devices(setup.provider, setup.library)) > 0
