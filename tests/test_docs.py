"""Pages for users: every command of this program in them is one that it takes, and every link leads somewhere."""

import re
import shlex
from pathlib import Path

import click
import pytest
from command_line import ROOT

from onnxslim_bert import cli
from onnxslim_bert.recipes.known import read_recipe

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TABLED = [page for page in PAGES if page.name in ("migrating.md", "folders.md")]  # their inline commands are whole


def commands(page: Path) -> list[list[str]]:
    """The words of each call of this program in its sh blocks, and in tables of those in backticks."""
    text = page.read_text(encoding="utf-8")
    blocks = "\n".join(re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)).replace("\\\n", " ")
    inline = re.findall(r"`(onnxslim [^`]+)`", text) if page in TABLED else []
    return [words for line in (*blocks.splitlines(), *inline) for words in calls(line)]


def calls(line: str) -> list[list[str]]:
    """What a line of shell calls of this program, without what follows ">"."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split, lexer.commenters = True, "#"
    parts: list[list[str]] = [[]]
    for word in lexer:
        if {*word} <= {*"();<>|&"}:
            parts.append([])
        else:
            parts[-1].append(word)
    return [words[1:] for words in parts if words and Path(words[0]).name == "onnxslim"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_is_taken(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With these options, spelled so; recipes are recipes."""
    monkeypatch.setattr(click.Path, "convert", lambda self, value, param, ctx: value)
    for words in commands(page):
        root = click.Context(cli.cli, info_name="onnxslim")
        name, command, rest = cli.cli.resolve_command(root, words)
        assert command is not None, words
        context = command.make_context(name, rest, parent=root)
        if context.params.get("recipe"):
            read_recipe(context.params["recipe"])


def test_there_are_commands_to_take() -> None:
    """The pages are read as meant: some have many."""
    assert len(commands(ROOT / "docs/migrating.md")) > 20
    assert sum(len(commands(page)) for page in PAGES) > 40


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if not re.match(r"[a-z]+:", target):
            assert (page.parent / target).exists(), target


def test_the_site_s_contents_list_every_page() -> None:
    """A page that no list names would not be found."""
    listed = re.findall(r"^(?!:)([\w/-]+)$", (ROOT / "docs/index.md").read_text(), re.MULTILINE)
    pages = {str(page.relative_to(ROOT / "docs").with_suffix("")) for page in PAGES if page.parent != ROOT}
    assert pages - {"index"} == {name for name in listed if (ROOT / f"docs/{name}.md").exists()}
