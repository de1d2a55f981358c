"""Names that other people chose: whatever they hold, no terminal, table, JSON, HTML or Markdown obeys them."""

import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import onnx
import pytest
from command_line import Outcome, run, workspace

from onnxslim_bert.errors import printable

# Escape codes, a carriage return, a line of its own, letters from right to left, and markup of rich, HTML and Markdown.
NAME = "e\x1b[31m\x9b2J\r\u202e[bold]b[link=x]:smile:<img src=x onerror=alert(1)>|`*&lt;\"'\x07\n# y"
SCRIPT = f"{NAME}[/]</script><script>alert(1)</script>\n# x"  # of a node, an output, a column
COMMANDS = (
    "inspect {model}",
    "inspect {model} --json",
    "quantize {model} --calib calib.tsv --data eval.tsv --method minmax -o {made}",
    "quantize {model} --mode dynamic --data eval.tsv -o {other} --json",
    "quantize {model} --calib {rows} --label-column {column} -o no.onnx",
    "quantize {model} --calib calib.tsv --max-length {column} -o no.onnx",
    "slim {model} -p canonicalize,fuse?,prune-ffn{keep=0.5} --calib calib.tsv --data eval.tsv -o slim.onnx",
    "slim {model} -p {column} -o no.onnx",
    "validate {model} {made} --data {rows} --text-column {column}",
    "validate {model} {made} --data {rows} --text-column {column} --json --markdown validate.md --junit validate.xml",
    "validate {model} {made} --data {rows} --label-column no{column}",
    "validate {model} {made} --data gone{rows}",
    "validate {model} {made} --data eval.tsv --inputs ids={column}",
    "validate {model} {made} --data eval.tsv --tokenizer gone{column}",
    "bench {model} {made} --seq 4 --rounds 2",
    "bench {model} {made} --seq 4 --rounds 2 --json",
    "explain {model} --target coreml",
    "explain {model} --target nnapi --json",
    "verify {made}",
    "verify {made} --json --markdown verify.md",
    "report {report} -o report.html",
    "mobile {model} -o phone",
    "split {model} -o two",
    "device bundle {model} --data eval.tsv --rows 3 --runs 1 --target cpu -o {bundle}",
    "device import {bundle} {rows}",
    "zoo init . -o zoo.toml --calib calib.tsv",
    "zoo run zoo.toml -o out --markdown zoo.md",
    "zoo status out",
    "zoo status out --json",
    "zoo retry out",
    "zoo diff out out --markdown diff.md",
    "report out -o zoo.html",
    "zoo gc out --dry-run",
    "zoo run {rows} -o no",
    "passes {column}",
    "recipes {column}",
    "schema {column}",
    "{column}",
)
SHOWN = ("inspect {model}", "bench {model} {made} --seq 4 --rounds 2")
FILES = ("report.html", "zoo.html", "validate.md", "diff.md", "zoo.md", "validate.xml")
ZOO = """
[defaults]
calib = "calib.tsv"
data = "eval.tsv"
[recipes.fast]
passes = "canonicalize?,fuse"
[[models]]
path = {path}
name = "bert"
[run]
time = false
study = false
"""


def renamed(path: Path) -> None:
    """Give every node, input, output, axis and tensor of the model a hostile name, and the header hostile texts."""
    model = onnx.load(path)
    graph = model.graph
    new = {value.name: f"{value.name}{SCRIPT}" for value in (*graph.input, *graph.output, *graph.initializer)}
    for number, node in enumerate(graph.node):
        node.name = f"{number}{SCRIPT}"
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                names[place] = new.setdefault(name, f"{name}{SCRIPT}") if name else ""
    for value in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        value.name = new.get(value.name, value.name)
    for value in (*graph.input, *graph.output):
        value.doc_string = SCRIPT
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param:
                axis.dim_param += SCRIPT
    graph.name = model.producer_name = model.producer_version = model.domain = model.doc_string = SCRIPT
    model.metadata_props.add(key=SCRIPT, value=SCRIPT)
    onnx.save(model, path)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """What each command printed, one after the other in one folder."""
    folder = tmp_path_factory.mktemp("names")
    model = workspace(folder)
    renamed(model)
    model.rename(folder / f"{NAME}.onnx")
    column = SCRIPT.replace("\n", " ").replace("\r", " ")
    lines = (folder / "eval.tsv").read_text().splitlines()
    (folder / f"{NAME}.tsv").write_text("\n".join([lines[0].replace("sentence", column), *lines[1:]]), newline="\n")
    places = {
        "model": f"{NAME}.onnx", "made": f"{NAME}.int8.onnx", "other": f"{NAME}.dyn.onnx", "rows": f"{NAME}.tsv",
        "report": f"{NAME}.int8.json", "column": column, "bundle": f"{NAME}.bundle", "keep=0.5": "{keep=0.5}",
    }  # fmt: skip
    ran = {}
    before = Path.cwd()
    os.chdir(folder)
    try:
        for command in COMMANDS:
            arguments = [re.sub(r"\{(.*?)\}", lambda found: places[found[1]], word) for word in command.split()]
            ran[command] = run(*arguments)
            if command.startswith("zoo init"):
                Path("zoo.toml").write_text(ZOO.format(path=json.dumps(places["model"])))
        return ran | {name: Outcome(0, Path(name).read_text(encoding="utf-8"), "") for name in FILES}
    finally:
        os.chdir(before)


class Tags(HTMLParser):
    """The elements of a page: name and attributes; the texts of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] == "script":
            self.scripts.append(data)


@pytest.mark.parametrize("name", [*COMMANDS, *FILES])
def test_nothing_that_a_terminal_obeys_is_printed_or_written(outcomes, name):
    """What is refused is one line."""
    outcome = outcomes[name]
    kept = "\n\t" if name.endswith((".html", ".xml")) else "\n"
    armed = {letter for letter in outcome.out + outcome.err if not letter.isprintable() and letter not in kept}
    assert armed == set()
    assert outcome.code in (0, 2), outcome
    assert outcome.code == 0 or outcome.err.count("\n") == 1
    if "--json" in name and not outcome.code:
        json.loads(outcome.out)


@pytest.mark.parametrize("name", [name for name in (*COMMANDS, *FILES) if not name.endswith((".html", ".xml"))])
def test_no_name_begins_a_line_of_its_own(outcomes, name):
    """What stands behind a new line or a carriage return in a name would look like a line of ours."""
    lines = re.split(r"[\r\n]", outcomes[name].out + outcomes[name].err)
    assert not [line for line in lines if line.lstrip(" │|").startswith(("# x", "# y"))]


@pytest.mark.parametrize("name", SHOWN)
def test_names_are_shown_whole(outcomes, name):
    """Brackets and smileys are letters, not markup."""
    assert outcomes[name].code == 0, outcomes[name]
    assert "[bold]b[link=x]:smile:<img src=x onerror=alert(1)>|`*&lt;" in outcomes[name].out
    assert printable(NAME[:5]) in outcomes[name].out


@pytest.mark.parametrize("name", ["report.html", "zoo.html"])
def test_a_page_runs_nothing_of_a_name(outcomes, name):
    page = Tags(outcomes[name].out)
    assert not [tag for tag, given in page.tags if any(key.startswith("on") for key in given)]
    assert not [given for tag, given in page.tags if tag == "img" and given.get("src") == "x"]
    assert not [script for script in page.scripts if "alert(1)" in script]
    assert len([tag for tag, _ in page.tags if tag == "script"]) == 4


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".md")])
def test_markdown_shows_names_as_they_are(outcomes, name):
    assert not re.search(r"(?<!\\)<(img|script)|^# x", outcomes[name].out, re.MULTILINE)
