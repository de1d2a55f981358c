"""The library as a program meets it: its page of examples runs, its names are typed, and importing it is cheap."""

import ast
import doctest
import importlib
from pathlib import Path

import pytest
from command_line import ROOT, run_python, workspace

import onnxslim_bert

PAGE = ROOT / "docs" / "library.md"


def test_the_examples_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each prints what the page says."""
    workspace(tmp_path)
    monkeypatch.chdir(tmp_path)
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    text = PAGE.read_text(encoding="utf-8").replace("```python\n", "").replace("```\n", "")
    test = doctest.DocTestParser().get_doctest(text, {}, PAGE.name, str(PAGE), 0)
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=flags)
    runner.run(test, out=said.append)
    assert runner.failures == 0, "".join(said)
    assert runner.tries > 20


def test_every_name_is_there_and_typed() -> None:
    """The stub that type checkers read names what the module gives."""
    tree = ast.parse((ROOT / "onnxslim_bert" / "__init__.pyi").read_text())
    stubbed = {
        alias.asname: node.module for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert {*stubbed, "__version__"} == {*onnxslim_bert.__all__}
    for name, module in stubbed.items():
        assert getattr(onnxslim_bert, name) is getattr(importlib.import_module(str(module)), str(name))
        assert getattr(onnxslim_bert, name).__doc__
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = onnxslim_bert.nothing  # type: ignore[attr-defined]


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, onnxslim_bert; print(sorted({'onnx', 'onnxruntime', 'numpy'} & {*sys.modules}))"
    assert run_python(code) == "[]"
