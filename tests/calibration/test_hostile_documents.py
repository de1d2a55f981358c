"""Tokenizers and data files that are none, or do harm: each is refused in one line, and nothing of theirs is run."""

import base64
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command_line import write_tokenizer

from onnxslim_bert.calibration.files import read_columns, read_feeds
from onnxslim_bert.calibration.load_tokenizer import load_tokenizer
from onnxslim_bert.errors import DataError, one_line

DEEP = "[" * 100_000


def changed(**parts: object) -> Callable[[Path], object]:
    """Overwrite parts of tokenizer.json."""

    def change(folder: Path) -> None:
        file = folder / "tokenizer.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | parts))

    return change


def beside(name: str, text: str) -> Callable[[Path], object]:
    """A file beside tokenizer.json."""
    return lambda folder: (folder / name).write_text(text)


def many(letters: int) -> dict[str, object]:
    return {"type": "Replace", "pattern": {"String": "w"}, "content": "w" * letters}


def nested(step: dict[str, object], depth: int) -> dict[str, object]:
    """A step twice in a sequence of sequences, which is as often as its depth."""
    inner = step if depth == 1 else nested(step, depth - 1)
    return {"type": "Sequence", "normalizers": [step, inner]} if depth > 1 else step


def charsmap(letters: int) -> dict[str, object]:
    """A table of SentencePiece that writes so many letters for one."""
    table = (4).to_bytes(4, "little") + bytes(4) + b"x" * letters + b"\0"
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(table).decode()}


BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


TOKENIZERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "deep brackets": (beside("tokenizer.json", DEEP), "not a Hugging Face tokenizer.json"),
    "no JSON": (beside("tokenizer.json", "\x1b[2J"), "not a Hugging Face tokenizer.json"),
    "another document": (beside("tokenizer.json", "{}"), "not a Hugging Face tokenizer.json"),
    "no vocabulary": (
        changed(model={"type": "WordLevel", "vocab": {}, "unk_token": "[UNK]"}, post_processor=None, added_tokens=[]),
        "has no tokens",
    ),
    "a vocabulary of holes": (
        changed(
            model={"type": "WordLevel", "vocab": {"[UNK]": 0, "a": 1 << 31}, "unk_token": "[UNK]"},
            post_processor=None,
            added_tokens=[],
        ),
        "token 'a' has id 2,147,483,648: ids of at most 16,777,215 are read",
    ),
    "a text of many letters for one": (changed(normalizer=many(1000)), "writes up to 1000 letters for one"),
    "a few letters for one, often": (
        changed(normalizer={"type": "Sequence", "normalizers": [many(10)] * 8}),
        "writes up to 100000000 letters",
    ),
    "a few letters for one, in sequences of sequences": (
        changed(normalizer=nested(many(10), 5)),
        "writes up to 100000 letters",
    ),
    "bytes as letters, of bytes as letters": (
        changed(pre_tokenizer={"type": "Sequence", "pretokenizers": [BYTE_LEVEL] * 9}),
        "writes up to 262144 letters",
    ),
    "a table that writes many letters": (changed(normalizer=charsmap(5000)), "writes up to 5000 letters"),
    "8 GB of nothing": (lambda folder: os.truncate(folder / "tokenizer.json", 1 << 33), "has 8,590 MB"),
    "a device": (
        lambda folder: (
            (folder / "tokenizer.json").unlink(),
            (folder / "tokenizer.json").symlink_to("/dev/zero"),
        ),
        "no regular file",
    ),
    "many tokens to every text": (
        changed(
            post_processor={
                "type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}] * 500
                + [{"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}] * 500
                + [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
                "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [1], "tokens": ["[CLS]"]}},
            }
        ),
        "adds 500 tokens",
    ),
    "deep brackets beside it": (beside("tokenizer_config.json", DEEP), "needed a JSON object"),
    "a list beside it": (beside("tokenizer_config.json", "[]"), "needed a JSON object"),
    "bytes beside it": (
        lambda folder: (folder / "tokenizer_config.json").write_bytes(b"\xff\xfe"),
        "needed a JSON object",
    ),
    "a pipe": (
        lambda folder: ((folder / "tokenizer.json").unlink(), os.mkfifo(folder / "tokenizer.json")),
        "no regular file",
    ),
    "a pipe beside it": (lambda folder: os.mkfifo(folder / "tokenizer_config.json"), "no regular file"),
    "code of its own": (
        lambda folder: (
            (folder / "tokenizer.json").unlink(),
            (folder / "tokenizer_config.json").write_text(
                json.dumps({"auto_map": {"AutoTokenizer": ["own.Own", None]}})
            ),
            (folder / "own.py").write_text("import pathlib; pathlib.Path('ran').touch()"),
        ),
        "code of its own, which is never run",
    ),
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_tokenizer_that_is_none_is_refused(tmp_path, monkeypatch, capsys, name):
    write_tokenizer(tmp_path)
    change, said = TOKENIZERS[name]
    change(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=said) as caught:
        load_tokenizer(tmp_path)
    assert len(one_line(caught.value, None)) < 600
    assert not (tmp_path / "ran").exists()
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "slow",
    [
        {"normalizer": {"type": "Replace", "pattern": {"Regex": "(a+)+b"}, "content": "x"}},
        {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(a+)+b"}, "behavior": "Isolated", "invert": False}},
    ],
)
def test_a_search_without_an_end_is_one_line(tmp_path, capfd, slow):
    """The library ends it and panics, which is not seen."""
    write_tokenizer(tmp_path)
    changed(**slow)(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    for work in (lambda: tokenizer.encode([("a" * 60,)], 8), lambda: tokenizer.encode_words([("a" * 60,)], 8)):
        with pytest.raises(DataError, match="cannot read these texts"):
            work()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("token", [7, None, [], {}, {"content": 3}, "", "[NONE]"])
def test_a_padding_token_that_is_no_text_is_none(tmp_path, token):
    write_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"pad_token": token, "model_max_length": "x"}))
    assert load_tokenizer(tmp_path).pad_id == 0


@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".jsonl", ".txt", ".parquet"])
def test_a_pipe_is_no_data(tmp_path, suffix):
    """Opening one would wait for a writer for ever."""
    os.mkfifo(tmp_path / f"rows{suffix}")
    with pytest.raises(DataError, match="no regular file"):
        read_columns(tmp_path / f"rows{suffix}")


def encrypted(path: Path) -> None:
    """An archive whose entries are said to be encrypted."""
    np.savez(path, a=np.zeros((3, 4)))
    data = bytearray(path.read_bytes())
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + place] |= 1
    path.write_bytes(bytes(data))


def huge_header(path: Path) -> None:
    """An array whose header states a shape of terabytes."""
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 9), }".ljust(117) + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)


def bomb(path: Path) -> None:
    """A gigabyte of zeros, packed."""
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("a.npy", "w", force_zip64=True) as file,
    ):
        for _ in range(300):
            file.write(bytes(1 << 20))


@pytest.mark.parametrize("nested", [False, True])
def test_a_parquet_file_that_unfolds_to_gigabytes_is_refused(tmp_path, nested):
    """A text of a megabyte, said once and meant a hundred thousand times, in as many rows or in the list of one."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    texts = pa.DictionaryArray.from_arrays(np.zeros(100_000, np.int32), pa.array(["w" * (1 << 20)]))
    texts = pa.ListArray.from_arrays(np.array([0, 100_000], np.int32), texts) if nested else texts
    pq.write_table(pa.table({"text": texts}), tmp_path / "rows.parquet")
    assert (tmp_path / "rows.parquet").stat().st_size < 1 << 21
    with pytest.raises(DataError, match="MB when unpacked"):
        read_columns(tmp_path / "rows.parquet")


def test_rows_of_no_numbers_are_refused(tmp_path):
    np.savez(tmp_path / "rows.npz", input_ids=np.ones((4, 0), int))
    with pytest.raises(DataError, match=r"'input_ids' is int64 \[4, 0\]: needed numbers"):
        read_feeds(tmp_path / "rows.npz")


@pytest.mark.parametrize("make", [encrypted, huge_header, bomb, os.mkfifo])
def test_an_archive_that_cannot_be_read_is_refused(tmp_path, make):
    make(tmp_path / "rows.npz")
    with pytest.raises(DataError, match="npz of plain arrays"):
        read_feeds(tmp_path / "rows.npz")
