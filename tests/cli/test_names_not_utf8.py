"""Folders whose names are not UTF-8, which on Linux is no error: files in them are as good as in any other."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from command_line import assert_refused, run, workspace

from onnxslim_bert.graph.native_path import native_name, native_path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="file systems elsewhere keep names in Unicode")
ODD = os.fsdecode(b"caf\xe9")  # Latin-1
ONCE = ("--rounds", "1")


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder of such a name and a plain one, each with a model, its tokenizer and rows."""
    top = tmp_path_factory.mktemp("names")
    (top / "made").mkdir()
    workspace(top / "made")
    proto = onnx.load(top / "made/model.onnx")
    outside = {"save_as_external_data": True, "location": "outside.bin", "size_threshold": 9}
    onnx.save_model(proto, top / "made/outside.onnx", **outside)
    proto.graph.node[5].op_type = "Nobody"
    (top / "made/nobody.onnx").write_bytes(proto.SerializeToString())
    rows = [line.split("\t") for line in (top / "made/calib.tsv").read_text().splitlines()[1:]]
    texts = [text for text, _ in rows]
    (top / "made/calib.txt").write_text("\n".join(texts))
    (top / "made/calib.csv").write_text("\n".join(["text", *texts]))
    (top / "made/calib.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    ids = np.ones((9, 5), np.int64)
    np.savez(top / "made/calib.npz", input_ids=ids, attention_mask=ids, token_type_ids=0 * ids)
    if find_spec("pyarrow"):
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table({"text": texts}), str(top / "made/calib.parquet"))
    (top / "made/folder/onnx").mkdir(parents=True)
    shutil.copy(top / "made/model.onnx", top / "made/folder/onnx")
    shutil.copy(top / "made/tokenizer.json", top / "made/folder")
    (top / "made/folder/config.json").write_text('{"model_type": "bert"}')
    (top / "made/slow").mkdir()
    (top / "made/slow/model.onnx").write_bytes(b"")
    (top / "made/slow/vocab.txt").write_text("[PAD]\n[CLS]\n[SEP]\n[UNK]\nw1\n")
    (top / "made/slow/tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    (top / "made/slow/config.json").write_text('{"model_type": "bert"}')
    shutil.copytree(top / "made", top / "plain")
    return (top / "made").rename(top / ODD), top / "plain"


Verb = Callable[[Path, Path, Path], tuple[object, ...]]
WORK: dict[str, Verb] = {  # a folder of such a name, a plain one, and what to write
    "inspect": lambda odd, plain, out: ("inspect", odd / "model.onnx", "--json"),
    "slim": lambda odd, plain, out: ("slim", odd / "outside.onnx", "-p", "fuse", "-o", plain / out),
    "quantize": lambda odd, plain, out: (
        *("quantize", odd / "model.onnx", "--calib", odd / "calib.tsv", "--data", odd / "eval.tsv"),
        *("--save-metrics", odd / "runs", "-o", odd / out, "--json"),
    ),
    "quantize for a phone": lambda odd, plain, out: (
        *("quantize", odd / "model.onnx", "--target", "nnapi", "--seq", "8", "-o", odd / out),
    ),
    "quantize a folder": lambda odd, plain, out: ("quantize", odd / "folder", "--mode", "dynamic", "-o", odd / out),
    "bench": lambda odd, plain, out: ("bench", odd / "model.onnx", odd / "outside.onnx", "--seq", "8", *ONCE, "--json"),
    "validate": lambda odd, plain, out: (
        *("validate", plain / "model.onnx", odd / "model.onnx", "--data", odd / "eval.tsv"),
        *("--junit", odd / f"{out}.xml", "--markdown", odd / f"{out}.md"),
    ),
    "explain": lambda odd, plain, out: ("explain", odd / "model.onnx", "--target", "coreml", "--seq", "8"),
    "device": lambda odd, plain, out: (
        *("device", "bundle", odd / "model.onnx", "--target", "cpu", "--data", odd / "eval.tsv", "-o", odd / out),
    ),
    "zoo": lambda odd, plain, out: ("zoo", "run", odd / "zoo.toml", "-o", odd / out),
    **{
        f"rows as {kind}": lambda odd, plain, out, kind=kind: (
            *("bench", plain / "model.onnx", "--data", odd / f"calib.{kind}", *ONCE),
        )
        for kind in ("txt", "csv", "jsonl", "npz", "parquet")
    },
}
ZOO = """[[models]]
path = "model.onnx"
[defaults]
data = "eval.tsv"
[recipes.small]
mode = "weight-only"
[run]
time = false
"""


@pytest.mark.parametrize("verb", WORK)
def test_it_works(places, verb):
    """Each command, where all, or only one of its files, lie in such a folder."""
    if verb == "rows as parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    (places[0] / "zoo.toml").write_text(ZOO)
    done = run(*WORK[verb](*places, Path(verb.replace(" ", "-"))))
    assert done.code == 0, done


REFUSED: dict[str, tuple[tuple[str, ...], str]] = {  # with the folder of such a name as {}
    "mobile": (("mobile", "{}/model.onnx", "-o", "{}/phone"), "as ONNX Runtime's converter needs it"),
    "a tokenizer without tokenizer.json": (
        ("bench", "{}/model.onnx", "--data", "{}/calib.tsv", "--tokenizer", "{}/slow"),
        "as transformers needs it",
    ),
    "zoo init": (("zoo", "init", "{}/slow"), "is not UTF-8, as a zoo file is"),
    "a model that does not load": (("bench", "{}/nobody.onnx", "--seq", "8"), "No Op registered for Nobody"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_is_one_line(places, what):
    """Libraries that take no such names are named; what ONNX Runtime says of such a file is read all the same."""
    words, said = REFUSED[what]
    assert_refused(run(*(word.format(places[0]) for word in words)), said)


def test_temporary_files(places, tmp_path, monkeypatch):
    """What ONNX Runtime writes among them, too: its optimized graph is read to see that weights stay int8."""
    folder = tmp_path / ODD
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    done = run("quantize", places[1] / "model.onnx", "--mode", "dynamic", "-o", tmp_path / "out.onnx")
    assert done.code == 0, done


def test_other_names_stay_text():
    """As Windows needs them."""
    plain = Path("folder") / "é.onnx"
    assert native_path(plain) == native_name(plain) == str(plain)
    assert os.fspath(native_path(Path(ODD))) == native_name(Path(ODD)) == b"caf\xe9"
