"""onnxslim device bundle: what lies in the folder, and what is refused, when it is made and when it is opened."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from answering_models import classifier, reading, texts
from command_line import assert_refused, contents, run, workspace
from devices import PLAN, ROWS, TABLE, expected_logits, small_bundle
from graphs import SOME

from onnxslim_bert.calibration.dataset import Dataset
from onnxslim_bert.calibration.working import Working
from onnxslim_bert.device.bundle import open_bundle
from onnxslim_bert.device.make import make_bundle
from onnxslim_bert.device.manifest import RunSettings
from onnxslim_bert.device.runner import arguments
from onnxslim_bert.errors import DataError, ModelError, OutputError


def test_a_bundle_holds_the_model_the_rows_and_the_answers(tmp_path: Path) -> None:
    """Inputs padded to the length, outputs as computed by hand, a hash of each file, no open axis."""
    bundle = small_bundle(tmp_path)
    manifest = bundle.manifest
    assert (bundle.folder / "model.onnx").read_bytes() == (tmp_path / "sums.onnx").read_bytes()
    assert bundle.tensor("test_data_set_1/input_0.pb").tolist() == [[4, 5, 0, 0, 0]]
    assert bundle.tensor("test_data_set_1/input_1.pb").tolist() == [[1, 1, 0, 0, 0]]
    for k, values in enumerate(expected_logits()):
        np.testing.assert_allclose(bundle.tensor(f"test_data_set_{k}/output_0.pb"), values, atol=1e-6)
    assert manifest.files.keys() == contents(bundle.folder).keys() - {
        *("manifest.json", "test_data_set_0", "test_data_set_1", "test_data_set_2")
    }
    assert (manifest.inputs, manifest.outputs) == (("input_ids", "attention_mask"), ("logits",))
    assert manifest.dimensions == {"batch": 1, "length": 5}


@pytest.mark.parametrize("name", SOME)
def test_every_export_is_bundled(tmp_path: Path, name: str) -> None:
    """The expected outputs are what ONNX Runtime computes from the test vectors by the names in them."""
    model = workspace(tmp_path, name)
    outcome = run(
        *("device", "bundle", model, "--data", tmp_path / "eval.tsv", "--rows", 4, "--batch", 2, "--seq", 9),
        *("--target", "nnapi", "-o", tmp_path / "bundle"),
    )
    assert outcome.code == 0, outcome
    bundle = open_bundle(tmp_path / "bundle")
    session = ort.InferenceSession(str(bundle.folder / "model.onnx"), providers=["CPUExecutionProvider"])
    for k in range(2):
        tensors = [
            onnx.load_tensor(bundle.folder / f"test_data_set_{k}/input_{i}.pb")
            for i in range(len(bundle.manifest.inputs))
        ]
        outputs = session.run(None, {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in tensors})
        for i, values in enumerate(outputs):
            np.testing.assert_allclose(bundle.tensor(f"test_data_set_{k}/output_{i}.pb"), values, atol=1e-5)


def test_the_base_says_what_is_expected(tmp_path: Path) -> None:
    """A candidate that computes something else is bundled with the base's answers."""
    base, candidate = classifier(tmp_path / "base.onnx", TABLE), classifier(tmp_path / "candidate.onnx", -TABLE)
    manifest = make_bundle(candidate, texts(ROWS), reading(tmp_path), tmp_path / "b", PLAN, base=base, length=5)
    np.testing.assert_allclose(
        open_bundle(tmp_path / "b").tensor("test_data_set_0/output_0.pb"), expected_logits()[0], atol=1e-6
    )
    assert (manifest.model, manifest.base) == ("candidate.onnx", "base.onnx")


def test_a_candidate_may_take_narrower_ids(tmp_path: Path) -> None:
    """Its test vectors are int32, as NNAPI wants them; the base gets the same rows in its own type."""
    base = classifier(tmp_path / "base.onnx", TABLE)
    proto = onnx.load(base)
    for value in proto.graph.input:
        value.type.tensor_type.elem_type = onnx.TensorProto.INT32
    onnx.save(proto, tmp_path / "narrow.onnx")
    rows = texts(ROWS), reading(tmp_path)
    make_bundle(tmp_path / "narrow.onnx", *rows, tmp_path / "b", RunSettings("nnapi"), base=base, length=5)
    bundle = open_bundle(tmp_path / "b")
    assert bundle.tensor("test_data_set_0/input_0.pb").dtype == np.int32
    np.testing.assert_allclose(bundle.tensor("test_data_set_0/output_0.pb"), expected_logits()[0], atol=1e-6)


def test_external_data_goes_along(tmp_path: Path) -> None:
    """Under its own name, beside the model; in a subfolder, which runners take for test vectors, it is refused."""
    model = classifier(tmp_path / "model.onnx", TABLE)
    proto = onnx.load(model)
    onnx.save(proto, model, save_as_external_data=True, location="weights.bin", size_threshold=90)
    make_bundle(model, texts(ROWS), reading(tmp_path), tmp_path / "b", PLAN, length=5)
    assert (tmp_path / "b/weights.bin").read_bytes() == (tmp_path / "weights.bin").read_bytes()
    assert "weights.bin" in open_bundle(tmp_path / "b").manifest.files
    (tmp_path / "sub").mkdir()
    onnx.save(onnx.load(model), tmp_path / "deep.onnx", save_as_external_data=True, location="sub/w", size_threshold=90)
    with pytest.raises(ModelError, match="needed another name, and beside the model"):
        make_bundle(tmp_path / "deep.onnx", texts(ROWS), reading(tmp_path), tmp_path / "c", PLAN, length=5)
    assert not (tmp_path / "c").exists()


def test_the_runner_gets_what_the_manifest_says(tmp_path: Path) -> None:
    """onnxruntime_perf_test's options: flags without a value, warm-up in the count, no fallback, axes fixed."""
    plan = RunSettings("nnapi", {"NNAPI_FLAG_USE_FP16": "", "key": "value"}, threads=2, warmup=3, runs=20)
    assert arguments(small_bundle(tmp_path, plan).manifest) == [
        *("-e", "nnapi", "-m", "times", "-r", "23", "-x", "2", "-y", "1", "-D"),
        *("-i", "NNAPI_FLAG_USE_FP16 key|value", "-C", "session.disable_cpu_ep_fallback|1"),
        *("-f", "batch:1", "-f", "length:5", "bundle/model.onnx", "latencies.csv"),
    ]


def test_the_same_bundle_twice_is_the_same(tmp_path: Path) -> None:
    first = small_bundle(tmp_path)
    first.folder.rename(tmp_path / "first")
    assert small_bundle(tmp_path).sha256 == first.sha256


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--target", "qnn"], "qnn takes fixed shapes only"),
        (["--target", "tpu"], "'tpu' is not one of"),
        (["--target", "cpu", "--rows", 3, "--batch", 2, "--seq", 9], "3 rows do not fill batches of 2: needed --rows"),
        (["--target", "cpu", "--option", "a|b=c"], "is no KEY=VALUE without spaces and |"),
        (["--target", "cpu", "--option", "=c"], "is no KEY=VALUE"),
        (["--target", "cpu", "--option", "a=b c"], "is no KEY=VALUE"),
    ],
)
def test_what_cannot_be_run_is_not_bundled(tmp_path: Path, options: list[object], words: str) -> None:
    model = workspace(tmp_path)
    before = contents(tmp_path)
    outcome = run("device", "bundle", model, "--data", tmp_path / "eval.tsv", "-o", tmp_path / "bundle", *options)
    assert_refused(outcome, words)
    assert contents(tmp_path) == before


def test_a_fixed_shape_is_kept(tmp_path: Path) -> None:
    """A model with fixed shapes says them; others are refused."""
    model = classifier(tmp_path / "fixed.onnx", TABLE, shape=(1, 6))
    manifest = make_bundle(model, texts(ROWS), reading(tmp_path), tmp_path / "b", RunSettings("qnn"))
    assert (manifest.batch, manifest.length, manifest.dimensions) == (1, 6, {})
    with pytest.raises(ModelError, match="fixes --seq to 6: it cannot run with 5"):
        make_bundle(model, texts(ROWS), reading(tmp_path), tmp_path / "c", RunSettings("qnn"), length=5)


@pytest.mark.parametrize("scale", [np.nan, 1.0])
def test_a_base_that_cannot_say_is_refused(tmp_path: Path, scale: float) -> None:
    """Because it answers NaN, or has other outputs."""
    model = classifier(tmp_path / "model.onnx", TABLE)
    base = classifier(tmp_path / "base.onnx", TABLE * scale, output="logits" if np.isnan(scale) else "other")
    words = "logits is NaN or infinite on the data" if np.isnan(scale) else "'logits' is an input or output of one"
    with pytest.raises(ModelError, match=words):
        make_bundle(model, texts(ROWS), reading(tmp_path), tmp_path / "b", PLAN, base=base, length=5)
    assert not (tmp_path / "b").exists()


def test_an_existing_folder_is_kept(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    with pytest.raises(OutputError, match="exists; give another folder"):
        make_bundle(classifier(tmp_path / "m.onnx", TABLE), texts(ROWS), Working(), tmp_path / "b", PLAN)


def test_ready_inputs_are_bundled(tmp_path: Path) -> None:
    """An npz needs no tokenizer."""
    feeds = {"input_ids": np.array([[1, 2, 3, 0]]), "attention_mask": np.array([[1, 1, 1, 0]])}
    model = classifier(tmp_path / "m.onnx", TABLE)
    make_bundle(model, Dataset("ready", "all", (), None, None, feeds), Working(), tmp_path / "b", PLAN)
    values = open_bundle(tmp_path / "b").tensor("test_data_set_0/output_0.pb")
    np.testing.assert_allclose(values, expected_logits()[0], atol=1e-6)


def edit(folder: Path, change: Callable[[dict[str, object]], object]) -> None:
    document = json.loads((folder / "manifest.json").read_text())
    change(document)
    (folder / "manifest.json").write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda found: found.update(schema=9), "has schema version 9: this program reads 1"),
        (lambda found: found.pop("outputs"), "is incomplete: needed outputs"),
        (lambda found: found["plan"].update(target="tpu"), "target 'tpu': needed one of cpu"),
        (lambda found: found["plan"].update(runs=0), "needed runs, threads, batch and vectors of 1 or more"),
        (lambda found: found.update(vectors=10**12), "hashes of 10 files for 1000000000000 test sets"),
        (lambda found: found.update(vectors=4), "is incomplete: needed the hash of test_data_set_3/input_0.pb"),
        (lambda found: found["files"].pop("model.onnx"), "is incomplete: needed the hash of model.onnx"),
        (lambda found: found["files"].update({"../x.pb": "0"}), "'../x.pb' lies outside the bundle"),
        (lambda found: found["files"].update({"/etc/passwd": "0"}), "'/etc/passwd' lies outside the bundle"),
        (lambda found: found["files"].update({"a/../../x": "0"}), "lies outside the bundle"),
        (lambda found: found["files"].update({"..\\x": "0"}), "lies outside the bundle"),
        (lambda found: found["files"].update({"link": "0"}), "'link' lies outside the bundle"),
        (lambda found: found["files"].update({"gone": "0"}), "is incomplete: needed the file gone"),
        (lambda found: found["files"].update({"model.onnx": "0"}), "model.onnx is not the file that was bundled"),
    ],
)
def test_a_bundle_that_was_touched_is_refused(
    tmp_path: Path, change: Callable[[dict[str, object]], object], words: str
) -> None:
    """Names that lead out of the folder, links too, are refused before anything is read."""
    folder = small_bundle(tmp_path).folder
    (tmp_path / "x.pb").write_text("x")
    (folder / "link").symlink_to(tmp_path / "x.pb")
    edit(folder, change)
    with pytest.raises(DataError, match=words.replace("\\", ".")):
        open_bundle(folder)


def test_a_changed_vector_is_refused(tmp_path: Path) -> None:
    """Results cannot be compared with something else than what was run."""
    folder = small_bundle(tmp_path).folder
    (folder / "test_data_set_0/output_0.pb").write_bytes(b"")
    assert_refused(run("device", "import", folder, folder / "manifest.json"), "is not the file that was bundled")
    assert_refused(run("device", "import", tmp_path), "is no bundle: needed manifest.json in it")
