"""Commands with what they write, for programs that disturb them: the outputs of before are there after, or new ones."""

import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from trial_runs import Limits, Run, run

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from command_line import write_rows, write_tokenizer  # type: ignore[import-not-found]  # noqa: E402

LIMITS = Limits(cpu_s=120, wall_s=300)
SAME_BYTES = (".onnx", ".data")  # what the same command writes again byte by byte; other files hold times and hosts
ZOO = """
[defaults]
calib = "calib.tsv"
data = "eval.tsv"
[recipes.exact]
passes = "canonicalize?,fuse?"
[recipes.dynamic]
mode = "dynamic"
[[models]]
path = "model.onnx"
[run]
time = false
study = false
"""


@dataclass(frozen=True)
class Case:
    """A command that writes `outputs`, over what `old` made before it ("": nothing). keeps: a folder to go on from."""

    command: str
    outputs: tuple[str, ...] = ()
    old: str = ""
    keeps: str = ""


MODEL = ("made.onnx", "made.json")
SEARCH = "made.search"
CASES = (
    Case("quantize model.onnx --mode dynamic --data eval.tsv -o made.onnx", MODEL),
    Case(
        "quantize model.onnx --calib calib.tsv --data eval.tsv --method minmax -o made.onnx --force",
        MODEL,
        "quantize model.onnx --mode weight-only -o made.onnx",
    ),
    Case(
        "slim model.onnx -p canonicalize?,fuse? --data eval.tsv -o made.onnx --force",
        ("made.onnx",),
        "slim model.onnx -p canonicalize? -o made.onnx --allow-noop",
    ),
    Case(
        "quantize model.onnx --target qnn --seq 4,8 --calib calib.tsv -o made --force",
        ("made", "made.json"),
        "quantize model.onnx --target qnn --seq 5,6 --calib calib.tsv -o made",
    ),
    Case("mobile model.onnx -o made", ("made",)),
    Case("device bundle model.onnx --target cpu --data eval.tsv --rows 4 -o made", ("made",)),
    Case("validate model.onnx model.onnx --data eval.tsv --junit made.xml", ("made.xml",)),
    Case("inspect model.onnx"),
    Case("zoo run zoo.toml -o out --jobs 1", ("out",), keeps="out"),
    Case("slim model.onnx --target-speedup 1.01 --calib calib.tsv -o made.onnx", MODEL, keeps=SEARCH),
)


def chosen(only: str | None, without: str | None) -> list[Case]:
    """The cases whose commands begin with `only`, and not with `without`; None for all, and for none."""
    begun = [case for case in CASES if case.command.startswith(only or "")]
    return [case for case in begun if without is None or not case.command.startswith(without)]


@dataclass(frozen=True)
class Prepared:
    """A case in a folder that is copied for each trial. before, after: the outputs without the command and after it."""

    case: Case
    folder: Path
    before: Mapping[str, bytes]
    after: Mapping[str, bytes]
    seconds: float


def prepare(case: Case, folder: Path, change: Callable[[Path], None] = lambda _: None) -> Prepared:
    """Make the folder of a case, and run its command once, undisturbed, in a copy. change: what to do to it first."""
    work, other = folder / "template", folder / "undisturbed"
    work.mkdir()
    fixture = ROOT / "tests" / "fixtures" / "bert-ts17-sdpa.onnx"
    (work / "model.onnx").write_bytes(fixture.read_bytes())
    (work / "zoo.toml").write_text(ZOO)
    write_tokenizer(work)
    write_rows(work / "calib.tsv", 40, seed=1)
    write_rows(work / "eval.tsv", 24, seed=2)
    change(work)
    if case.old:
        _done(run(case.old.split(), work, LIMITS))
    shutil.copytree(work, other)
    ended = _done(run(case.command.split(), other, LIMITS))
    return Prepared(case, work, outputs_in(work, case), outputs_in(other, case), ended.wall_s)


def outputs_in(work: Path, case: Case) -> dict[str, bytes]:
    """The files that the case's command writes, by name; links into a store, a log and a lock of a zoo are left out."""
    found: dict[str, bytes] = {}
    for name in case.outputs:
        place = work / "out" / "models" if name == "out" else work / name
        for path in [place, *place.rglob("*")]:
            if path.is_file():
                found[str(path.relative_to(work))] = path.read_bytes()
    return found


def state_of(work: Path, prepared: Prepared) -> str:
    """How the outputs are now: "old", "new", or what is half of both."""
    now, before, after = outputs_in(work, prepared.case), prepared.before, prepared.after
    if now == before:
        return "old"
    if now.keys() != after.keys():
        return f"half: {sorted(now.keys() ^ after.keys())}"
    for name, content in now.items():
        exact = name.endswith(SAME_BYTES) and prepared.case.keeps != SEARCH  # which chooses by times
        if (content != after[name]) if exact else (content == before.get(name)):
            return f"half: {name} is not what the command writes"
    return "new"


def strangers(work: Path, prepared: Prepared) -> list[str]:
    """What lies there besides what was given and the outputs."""
    case = prepared.case
    known = {path.name for path in prepared.folder.iterdir()} | {Path(name).parts[0] for name in case.outputs}
    return sorted(path.name for path in work.iterdir() if path.name not in known | {case.keeps})


def _done(ended: Run) -> Run:
    if ended.code:
        raise SystemExit(f"undisturbed, {' '.join(ended.arguments)} ends with {ended.code}: {ended.err}")
    return ended
