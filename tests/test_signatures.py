"""No function of the core takes more arguments than a reader can hold: what travels together is one object."""

import ast
from collections.abc import Iterator
from pathlib import Path

from command_line import ROOT

MOST = 8
COMMANDS = ROOT / "onnxslim_bert" / "cli"  # a command has as many parameters as options
OPERATORS = ROOT / "onnxslim_bert" / "rewriting" / "distillation" / "attention.py"  # ONNX says what an operator takes


def functions() -> Iterator[tuple[Path, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every function and method of the package, nested ones too, with its file."""
    folders = (ROOT / name for name in ("onnxslim_bert", "passes", "calibration"))
    for path in sorted({path.resolve() for folder in folders for path in folder.rglob("*.py")}):
        if not path.is_relative_to(COMMANDS) and path != OPERATORS:
            tree = ast.parse(path.read_text(encoding="utf-8"))
            for node in ast.walk(tree):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    yield path, node


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """What a caller gives: without the object or class of a method."""
    arguments = function.args
    names = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return names[1:] if names[:1] in (["self"], ["cls"]) else names


def test_no_function_of_the_core_takes_more_than_eight_arguments() -> None:
    found = list(functions())
    assert len(found) > 1000
    crowded = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}" for path, node in found if len(parameters(node)) > MOST
    ]
    assert crowded == []


def test_arguments_are_counted_as_callers_give_them() -> None:
    tree = ast.parse("class A:\n    def f(self, a, /, b, *, c=1): ...\ndef g(a, b): ...")
    counted = [parameters(node) for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    assert sorted(map(len, counted)) == [2, 3]
