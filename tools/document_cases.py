"""A folder that holds every kind of document that a command reads, and the commands that read them."""

import base64
import hashlib
import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from document_damage import Kind
from trial_runs import Limits, run

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from command_line import SPECIAL, WORDS, write_rows, write_tokenizer  # type: ignore[import-not-found]  # noqa: E402

FIXTURES = ROOT / "tests" / "fixtures"
CLASSES = 5
PROVENANCE, MEASURED = "onnxslim_bert.provenance", "onnxslim_bert.release.measured"
ZOO = """\
[defaults]
calib = "calib.tsv"
data = "eval.tsv"
timeout = "5min"
targets = ["cpu"]

[defaults.budgets]
max-size = "24MB"

[recipes.fast]
passes = "canonicalize?,fuse,prune-ffn{keep=0.5}"
max-length = 16
rows = 16
seed = 1

[[models]]
path = "model.onnx"
name = "bert"

[run]
time = false
study = false
"""
CARD = """\
---
tags: [sentence-transformers]
model-index:
- name: x
  results: []
---
# A model
"""


@dataclass(frozen=True)
class Case:
    """A document and a command that reads it.

    place: the document's path in the folder, a glob that matches one; of an argument its text, which stands where the
    command has `{}`; of a variable of the environment its name.
    needed: whether the command cannot do without it; one of a cache is measured again where it is damaged.
    within: of a metadata entry of the model at `place` that is the document, its key.
    leaves: a folder in which a command that fails may leave what it has done so far.
    """

    place: str
    kind: Kind | Literal["argument", "variable"]
    command: str
    needed: bool = True
    within: str = ""
    leaves: str = ""


def _each(place: str, kind: Kind, *commands: str, **more: bool | str) -> Iterator[Case]:
    yield from (Case(place, kind, command, **more) for command in commands)  # type: ignore[arg-type]


def _rows(place: str, kind: Kind, model: str = "model.onnx") -> Iterator[Case]:
    """A file of rows, to evaluate on, to calibrate on and to time; questions are not for these models to answer."""
    judged = (
        ()
        if "questions" in place
        else (
            f"validate {model} {model} --data {place}",
            f"validate {model} {model} --data {place} --rows 3 --batch 4",
        )
    )
    quick = "" if kind == "npz" else f"--max-length 16 --tokenizer {Path(model).parent}"
    yield from _each(
        place,
        kind,
        *judged,
        f"quantize {model} --calib {place} --method minmax -o made.onnx {quick}",
        f"slim {model} -p canonicalize?,prune-ffn{{keep=0.5}} --calib {place} -o made.onnx {quick}",
        f"bench {model} --data {place} --rounds 2",
    )


VALIDATE = "validate model.onnx model.onnx --data eval.tsv"
SENTENCE = "validate sentence/model.onnx sentence/model.onnx --data eval.tsv"
OLD = f"{VALIDATE} --tokenizer old"
FOLDER = "quantize sentence --mode dynamic -o slim"
ZOO_RUN = "zoo run zoo.toml -o out"
IMPORT = "device import bundle results.json"
TRIM = "slim pieces/model.onnx -p canonicalize?,trim-vocabulary --calib calib.tsv --rewrite-tokenizer -o made/m.onnx"
CASES = (
    *_rows("rows.tsv", "text"),
    *_rows("rows.csv", "text"),
    *_rows("rows.jsonl", "jsonl"),
    *_rows("rows.txt", "text"),
    *_rows("rows.npz", "npz"),
    *_rows("rows.parquet", "bytes"),
    *_rows("rows.conll", "text", "tags/model.onnx"),
    *_rows("lists.jsonl", "jsonl", "tags/model.onnx"),
    *_rows("questions.json", "json"),
    *_each("tokenizer.json", "json", VALIDATE, "quantize model.onnx --calib calib.tsv --method minmax -o made.onnx"),
    *_each("pieces/tokenizer.json", "json", TRIM, VALIDATE.replace("model.onnx", "pieces/model.onnx")),
    *_each("tokenizer_config.json", "json", VALIDATE, "bench model.onnx --data eval.tsv --rounds 2"),
    *_each("old/vocab.txt", "bytes", OLD),
    *_each("old/tokenizer_config.json", "json", OLD),
    *_each("old/special_tokens_map.json", "json", OLD, needed=False),
    *_each("config.json", "json", VALIDATE, "quantize model.onnx --mode dynamic --data eval.tsv -o made.onnx"),
    *_each("sentence/modules.json", "bytes", SENTENCE, needed=False),
    *_each("sentence/1_Pooling/config.json", "json", SENTENCE),
    *_each("sentence/README.md", "bytes", *[FOLDER] * 2, needed=False),
    *_each("sentence/config.json", "json", FOLDER),
    *_each("zoo.toml", "toml", *[ZOO_RUN] * 6, leaves="out"),
    *_each("zoo.toml", "toml", "zoo run zoo.toml -o fresh", leaves="fresh"),
    *_each("out/run.json", "json", *["report out -o page.html", "zoo diff out other", "zoo diff other out"] * 2),
    *_each("out/run.json", "json", "zoo gc out --dry-run", "zoo gc out", leaves="out"),
    *_each("out/zoo.sqlite", "bytes", "zoo status out", "zoo status out --json", "zoo retry out", leaves="out"),
    *_each("out/zoo.sqlite", "bytes", ZOO_RUN, leaves="out"),
    *_each("out/objects/*/result.json", "json", ZOO_RUN, needed=False, leaves="out"),
    *_each("int8.json", "json", *["report int8.json -o page.html"] * 4),
    # not as .svg: what draws it reserves more address space than the limits leave
    *_each("small.json", "json", *["report small.json -o page.html"] * 2),
    *_each("int8.onnx", "json", "verify int8.onnx", "inspect int8.onnx", within=PROVENANCE, needed=False),
    *_each("int8.onnx", "json", *["verify int8.onnx"] * 2, within=MEASURED, needed=False),
    *_each("bundle/manifest.json", "json", *[IMPORT] * 3),
    *_each("results.json", "json", *[IMPORT] * 3),
    *_each("bundle/test_data_set_0/output_0.pb", "bytes", IMPORT),
    *(
        Case(text, "argument", command)
        for text, command in (
            ("canonicalize,fuse,unpad?", "slim model.onnx -p {} -o made.onnx"),
            ("canonicalize,prune-ffn{keep=0.5}", "slim model.onnx -p {} --calib calib.tsv -o made.onnx"),
            ("@exact,quantize-dynamic", "slim model.onnx -p {} -o made.onnx"),
            ("quantize-static{method=mse,float-layers=0/1}", "slim model.onnx -p {} --calib calib.tsv -o made.onnx"),
            ("ids=input_ids,mask=attention_mask,types=token_type_ids", f"{VALIDATE} --inputs {{}}"),
            ("24MB", f"{VALIDATE} --max-size {{}}"),
            ("1.5", f"{VALIDATE} --max-drop {{}}"),
            ("12", f"{VALIDATE} --rows {{}} --seed 1"),
            ("8", f"{VALIDATE} --max-length {{}}"),
            ("7", f"{VALIDATE} --seed {{}}"),
            ("sentence", f"{VALIDATE} --text-column {{}}"),
            ("label", f"{VALIDATE} --label-column {{}}"),
            ("classification", f"{VALIDATE} --task {{}}"),
            ("eval.tsv", "validate model.onnx model.onnx --data {}"),
            ("cpu", f"{VALIDATE} --ep {{}}"),
            ("cpu.session.x64quantprecision=1", f"{VALIDATE} --ep-option {{}}"),
            ("4,8", "bench model.onnx --rounds 2 --seq {}"),
            ("1,2", "bench model.onnx --rounds 2 --seq 4 --batch {}"),
            ("be*", "report out --model {} -o page.html"),
            ("prune-ffn", "passes {}"),
            ("int8", "recipes {}"),
            ("report", "schema {}"),
            ("coreml", "explain model.onnx --target {}"),
            ("tokenizer.json", f"{VALIDATE} --tokenizer {{}}"),
            ("made.onnx", "slim model.onnx -p canonicalize -o {}"),
        )
    ),
    Case("COLUMNS", "variable", VALIDATE),
    Case("COLUMNS", "variable", "zoo status out"),
    Case("ONNXSLIM_DATA", "variable", "validate model.onnx model.onnx --data sst2"),
    Case("ONNXSLIM_BERT_QUIET", "variable", "passes"),
    Case("HF_HOME", "variable", "validate model.onnx model.onnx --data mrpc"),
    Case("HF_HOME", "variable", OLD),
    Case("ANDROID_SERIAL", "variable", "device run bundle --adb --runner model.onnx -o answers.json"),
)


def prepare(folder: Path) -> None:
    """Make the folder, by the commands themselves. Raises RuntimeError for one that fails."""
    shutil.copyfile(FIXTURES / "bert-ts17-sdpa.onnx", folder / "model.onnx")
    write_tokenizer(folder)
    write_rows(folder / "calib.tsv", 40, seed=1)
    write_rows(folder / "eval.tsv", 24, seed=2)
    _json(folder / "tokenizer_config.json", {"model_max_length": 24, "pad_token": "[PAD]", "do_lower_case": False})
    _json(folder / "config.json", _config("BertForSequenceClassification", CLASSES))
    _write_row_files(folder)
    for name, fixture in (("sentence", "bert-features"), ("tags", "bert-features"), ("pieces", "bert-ts17-sdpa")):
        (folder / name).mkdir()
        shutil.copyfile(FIXTURES / f"{fixture}.onnx", folder / name / "model.onnx")
        shutil.copyfile(folder / "tokenizer.json", folder / name / "tokenizer.json")
    width = 12
    _json(folder / "tags" / "config.json", _config("BertForTokenClassification", width))
    _json(folder / "sentence" / "config.json", {"architectures": ["BertModel"], "hidden_size": width})
    (folder / "sentence" / "README.md").write_text(CARD)
    _json(folder / "sentence" / "modules.json", [{"idx": 0, "name": "0", "path": ""}, {"idx": 1, "path": "1_Pooling"}])
    (folder / "sentence" / "1_Pooling").mkdir()
    _json(folder / "sentence" / "1_Pooling" / "config.json", {"pooling_mode_cls_token": True, "word_dimension": width})
    _write_pieces(folder / "pieces")
    _write_old(folder / "old")
    (folder / "made").mkdir()
    (folder / "zoo.toml").write_text(ZOO)
    for command in (
        ZOO_RUN,
        "zoo run zoo.toml -o other",
        "quantize model.onnx --calib calib.tsv --data eval.tsv --method minmax -o int8.onnx",
        "slim model.onnx --target-size 70kB --max-drop 100 --calib calib.tsv --data eval.tsv -o small.onnx",
        "device bundle model.onnx --data eval.tsv --rows 3 --runs 2 --target cpu -o bundle",
    ):
        done = run(command.split(), folder, Limits(wall_s=600))
        if done.code:
            raise RuntimeError(f"{command}: exit code {done.code}: {done.err}")
    _json(folder / "results.json", _results(folder / "bundle"))


def _json(path: Path, document: object) -> None:
    path.write_text(json.dumps(document, indent=1))


def _config(architecture: str, classes: int) -> dict[str, object]:
    names = {str(number): f"name_{number}" for number in range(classes)}
    return {
        "architectures": [architecture],
        "id2label": names,
        "label2id": {name: int(number) for number, name in names.items()},
        "hidden_size": 12,
        "problem_type": None,
    }


def _write_row_files(folder: Path) -> None:
    """The same kind of rows in every format."""
    lines = [line.split("\t") for line in (folder / "eval.tsv").read_text().splitlines()]
    header, rows = lines[0], lines[1:]
    (folder / "rows.tsv").write_text("\n".join("\t".join(line) for line in lines) + "\n")
    (folder / "rows.csv").write_text("\n".join(f'"{text}",{label}' for text, label in lines) + "\n")
    (folder / "rows.txt").write_text("\n".join(text for text, _ in rows) + "\n")
    labelled = [json.dumps({"sentence": text, "label": int(label)}) for text, label in rows]
    (folder / "rows.jsonl").write_text("\n".join(labelled) + "\n")
    tagged = [[(word, f"name_{len(word) % 3}") for word in text.split()] for text, _ in rows]
    conll = "\n\n".join("\n".join(f"{word} {tag}" for word, tag in row) for row in tagged)
    (folder / "rows.conll").write_text(conll + "\n")
    lists = [json.dumps({"tokens": [word for word, _ in row], "tags": [tag for _, tag in row]}) for row in tagged]
    (folder / "lists.jsonl").write_text("\n".join(lists) + "\n")
    asked = [{"question": text, "id": label, "answers": [{"text": "w1"}]} for text, label in rows]
    _json(
        folder / "questions.json", {"version": "1", "data": [{"paragraphs": [{"context": "w1 w2 w3", "qas": asked}]}]}
    )
    ids = np.random.default_rng(0).integers(4, 30, (6, 7))
    ones = np.ones_like(ids)
    arrays = {"input_ids": ids, "attention_mask": ones, "token_type_ids": ones - 1, "label": ids[:, 0] % CLASSES}
    np.savez(folder / "rows.npz", **arrays)  # type: ignore[arg-type]
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        return
    table = pa.table({name: [row[place] for row in rows] for place, name in enumerate(header)})
    pq.write_table(table, folder / "rows.parquet")


def _write_pieces(folder: Path) -> None:
    """A WordPiece tokenizer, whose words have smaller pieces."""
    digits = [str(digit) for digit in range(10)]
    pieces = [*SPECIAL, *digits, *(f"##{digit}" for digit in digits), "w", *WORDS[:6], *("10", "11", "12", "13", "14")]
    file = json.loads((folder / "tokenizer.json").read_text())
    file["model"] = {
        "type": "WordPiece",
        "unk_token": "[UNK]",
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100,
        "vocab": {piece: number for number, piece in enumerate(pieces)},
    }
    _json(folder / "tokenizer.json", file)


def _write_old(folder: Path) -> None:
    """A tokenizer without tokenizer.json, as BERT's were."""
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join([*SPECIAL, "[MASK]", *WORDS[:30]]) + "\n")
    _json(folder / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer", "model_max_length": 24})
    _json(folder / "special_tokens_map.json", {"pad_token": "[PAD]", "cls_token": "[CLS]", "unk_token": "[UNK]"})


def _results(bundle: Path) -> dict[str, object]:
    """What a device that answers as expected sends."""
    outputs = sorted(bundle.glob("test_data_set_*/output_*.pb"))
    sent = {str(path.relative_to(bundle)): path.read_bytes() for path in outputs}
    return {
        "schema": 1,
        "tool": "an app",
        "bundle": hashlib.sha256((bundle / "manifest.json").read_bytes()).hexdigest(),
        "device": "a phone",
        "runner": "an app",
        "latencies_ms": [1.5, 2.5],
        "peak_bytes": 1000,
        "outputs": {
            name: {"sha256": hashlib.sha256(data).hexdigest(), "data": base64.b64encode(data).decode()}
            for name, data in sent.items()
        },
    }


def note_in(model: Path, key: str) -> str:
    """The metadata entry `key` of a model."""
    return next(str(entry.value) for entry in onnx.load(model).metadata_props if entry.key == key)


def with_note(model: Path, key: str, text: str) -> None:
    """Give the metadata entry `key` of a model another text."""
    proto = onnx.load(model)
    for entry in proto.metadata_props:
        if entry.key == key:
            entry.value = text
    model.write_bytes(proto.SerializeToString())
