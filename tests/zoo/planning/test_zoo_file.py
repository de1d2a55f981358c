"""A zoo file becomes a plan, or every mistake in it is told at once with its line."""

import shutil
import tomllib
from pathlib import Path

import onnx
import pytest
from command_line import workspace, write_rows
from graphs import fixture

from onnxslim_bert.errors import DataError
from onnxslim_bert.job.data import Sources
from onnxslim_bert.job.deployment import Deployment
from onnxslim_bert.job.main_recipe import Quantization, main_recipe
from onnxslim_bert.proof.gates import Budgets
from onnxslim_bert.recipes.provenance import KEY
from onnxslim_bert.recipes.recipe import Recipe
from onnxslim_bert.zoo.planning.find_models import find_models, names_for
from onnxslim_bert.zoo.planning.jobs import TIMEOUT
from onnxslim_bert.zoo.planning.mistakes import ZooError
from onnxslim_bert.zoo.planning.toml_lines import Place, lines_of
from onnxslim_bert.zoo.planning.zoo_file import read_zoo

HEAD = """\
[defaults]
calib = "reviews"
[recipes.int8]
mode = "static"
"""


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    """Where a zoo file is to be, in a folder with model.onnx, its tokenizer, calib.tsv and eval.tsv."""
    workspace(tmp_path)
    return tmp_path / "zoo.toml"


def mistakes(path: Path, text: str) -> list[str]:
    """What is wrong with `text`, without the name of the file."""
    path.write_text(text)
    with pytest.raises(ZooError) as caught:
        read_zoo(path)
    assert str(caught.value) == "\n".join(caught.value.mistakes)
    assert caught.value.lines == caught.value.mistakes
    assert all(line.startswith("zoo.toml:") for line in caught.value.mistakes)
    return [line.removeprefix("zoo.toml:") for line in caught.value.mistakes]


# lines

AWKWARD = '''\
# [comment]
plain = 1 # [ {
"quoted # key" = "v"  # c
'lit"eral'."d.e" = [ # [
  "x", # ,

  # nothing
  'y]', "z",
  [1,
   2], { k = ["]"] },
]
text = """
[models]
a = 1 \\""" b"""""
[[models]]
path = "a"
  [models.budgets]
  max-drop = 1
[[models]]
path = \'\'\'b
[x]\'\'\'\'
budgets = {max-drop = 2, "min x" = 3}
[[models.sub]]
z = 1
[[models.sub]]
z = 2
[recipes . "in]t" ]
q = []
[recipes.d.e]
last = "no newline"'''


def paths_in(value: object, place: Place = ()) -> list[Place]:
    """Every place of a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place, *(found for key, inner in items for found in paths_in(inner, (*place, key)))]


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_every_place_of_an_awkward_file_has_its_line(newline):
    found = lines_of(AWKWARD.replace("\n", newline), paths_in(tomllib.loads(AWKWARD)))
    expected: dict[Place, int] = {
        ("plain",): 2,
        ("quoted # key",): 3,
        ('lit"eral', "d.e"): 4,
        ('lit"eral', "d.e", 0): 5,
        ('lit"eral', "d.e", 1): 8,
        ('lit"eral', "d.e", 2): 8,
        ('lit"eral', "d.e", 3): 9,
        ('lit"eral', "d.e", 4, "k"): 10,
        ('lit"eral', "d.e", 4, "k", 0): 10,
        ("text",): 12,
        ("models",): 15,
        ("models", 0, "path"): 16,
        ("models", 0, "budgets"): 17,
        ("models", 0, "budgets", "max-drop"): 18,
        ("models", 1): 19,
        ("models", 1, "path"): 20,
        ("models", 1, "budgets", "min x"): 22,
        ("models", 1, "sub", 0, "z"): 24,
        ("models", 1, "sub", 1): 25,
        ("models", 1, "sub", 1, "z"): 26,
        ("recipes",): 27,
        ("recipes", "in]t", "q"): 28,
        ("recipes", "d", "e", "last"): 30,
    }
    assert {place: found[place] for place in expected} == expected


def test_what_is_not_there_is_where_it_would_be():
    places: list[Place] = [("a", "b"), ("a", "c", 3), ("z",)]
    assert lines_of("[a]\nb = 1\n", places) == dict(zip(places, (2, 1, 1), strict=True))


# plans


PLAN = """\
[defaults]
calib = "calib.tsv"
data = "eval.tsv"
tokenizer = "tokenizer.json"
seq = 8
rows = 7
memory = "1.5GB"
timeout = "2min"
[defaults.budgets]
max-drop = 1
max-size = "24MB"
max-download = "20MB"
[recipes.int8]
mode = "static"
[recipes.small]
passes = "canonicalize?, fuse ,prune-ffn{keep=0.5}"
seed = 2
budgets = {max-drop = 3}
[[models]]
path = "model.onnx"
targets = ["cpu", "qnn"]
recipes = ["int8", "small"]
budgets.min-agreement = 50
[run]
rounds = 5
"""


def test_a_plan_is_models_times_recipes_times_targets(zoo):
    zoo.write_text(PLAN)
    folder = zoo.parent
    plan = read_zoo(zoo)
    assert (plan.path, plan.rounds, plan.time, plan.study, plan.batch, plan.length) == (zoo, 5, True, True, 1, 128)
    assert [job.name for job in plan.jobs] == [
        "model int8 cpu",
        "model int8 qnn",
        "model small cpu",
        "model small qnn",
    ]
    on_cpu, on_qnn, small, small_qnn = plan.jobs
    assert on_cpu.source == str(folder / "model.onnx")
    static, qnn = Quantization(mode="static"), Deployment("qnn", (8,))
    assert (on_cpu.text, on_cpu.passes, on_cpu.deployment) == (
        "quantize{mode=static}",
        main_recipe(static),
        Deployment(),
    )
    assert on_cpu.sources == Sources(str(folder / "calib.tsv"), str(folder / "eval.tsv"), 7, folder / "tokenizer.json")
    assert on_cpu.budgets == Budgets(max_drop=1, min_agreement=50, max_size=24_000_000, max_download=20_000_000)
    assert (on_cpu.memory, on_cpu.timeout) == (1_500_000_000, 120.0)
    assert (on_qnn.passes, on_qnn.deployment) == (main_recipe(static, qnn), qnn)
    assert small.text == "canonicalize?,fuse,prune-ffn{keep=0.5}"
    assert small.passes == Recipe.parse(small.text)
    assert small.budgets == Budgets(max_drop=3, min_agreement=50, max_size=24_000_000, max_download=20_000_000)
    assert (small.working.seed, on_cpu.working.seed) == (2, 0)
    assert str(small_qnn.passes).startswith(f"{small.text},canonicalize?,")
    assert "fix-shapes{seq=8}" in str(small_qnn.passes)


def test_a_calibration_file_alone_serves_budgets_and_names_its_labels(zoo):
    """A part of it is held back to judge; one without labels serves no budget for a drop."""
    entry = '[recipes.r]\nmode = "static"\ncalib = "calib.tsv"\nlabel-column = "label"\nbudgets = {max-drop = 9}\n'
    zoo.write_text(entry + '[[models]]\npath = "model.onnx"\n')
    (job,) = read_zoo(zoo).jobs
    assert job.sources == Sources(str(zoo.parent / "calib.tsv"), rows=256, label_column="label")
    assert job.sources.holds_back
    (zoo.parent / "plain.txt").write_text("w1 w2\nw3\n")
    plain = entry.replace("calib.tsv", "plain.txt").replace('label-column = "label"\n', "")
    (mistake,) = mistakes(zoo, plain + '[[models]]\npath = "model.onnx"\n')
    assert "max-drop needs labels: " in mistake
    assert mistake.endswith("plain.txt has none")


def test_a_default_that_a_recipe_does_not_read_is_left_out(zoo):
    zoo.write_text(HEAD + '[recipes.dynamic]\nmode = "dynamic"\n[[models]]\npath = "model.onnx"\n')
    static, dynamic = (job.sources for job in read_zoo(zoo).jobs)
    assert static == Sources("reviews", "reviews", 256)
    assert dynamic == Sources(None, "reviews", None)


def test_several_lengths_are_for_the_main_job(zoo):
    zoo.write_text(HEAD + '[[models]]\npath = "model.onnx"\ntargets = ["qnn"]\nseq = [4, 8]\n')
    assert read_zoo(zoo).jobs[0].deployment.seq == (4, 8)
    passes = '[defaults]\ncalib = "reviews"\nseq = [4, 8]\ntargets = ["qnn"]\n[recipes.a]\npasses = "fuse"\n'
    assert mistakes(zoo, passes + '[[models]]\npath = "model.onnx"\n') == [
        "5: recipe 'a' for qnn: a recipe of passes is run for one length; give one seq"
    ]


def test_a_file_belongs_to_the_last_entry_that_matches_it(zoo):
    for name in ("a", "b", "c"):
        (zoo.parent / f"{name}.onnx").write_bytes((zoo.parent / "model.onnx").read_bytes())
    zoo.write_text(
        HEAD + '[[models]]\npath = "?.onnx"\nrows = 3\n[[models]]\npath = "./b.onnx"\nrows = 5\nname = "B1"\n'
    )
    assert [(job.model, job.sources.rows) for job in read_zoo(zoo).jobs] == [("a", 3), ("c", 3), ("B1", 5)]


def test_paths_name_files_globs_folders_and_urls(tmp_path):
    for name in ("b.onnx", "a.onnx", "deep/er/c.onnx", "deep/note.txt", "odd [1].onnx"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    def found(path: str) -> list[str]:
        return [Path(model).relative_to(tmp_path).as_posix() for model in find_models(path, tmp_path).models]

    assert found("*.onnx") == found(".") == ["a.onnx", "b.onnx", "odd [1].onnx"]
    assert found("**/*.onnx") == ["a.onnx", "b.onnx", "deep/er/c.onnx", "odd [1].onnx"]
    assert found("odd [1].onnx") == ["odd [1].onnx"]
    assert found(str(tmp_path / "deep/*/c.onnx")) == ["deep/er/c.onnx"]
    assert find_models("s3://nowhere/m.onnx", tmp_path).models == ["s3://nowhere/m.onnx"]
    url = f"file://{tmp_path}/deep"
    assert find_models(f"{url}/**/*.onnx", tmp_path).models == [f"{url}/er/c.onnx"]


def test_links_that_lead_back_are_not_followed_without_end(tmp_path):
    """Two of them double the paths at every level; and a folder's own brackets are no pattern."""
    folder = tmp_path / "x[1]*"
    (folder / "deep").mkdir(parents=True)
    for name in ("a.onnx", "deep/b.onnx", "deep/.hidden.onnx"):
        (folder / name).write_bytes(b"")
    for name in ("again", "once more", "deep/up"):
        (folder / name).symlink_to(folder)
    (folder / "itself.onnx").symlink_to("itself.onnx")
    for pattern in ("**/*.onnx", f"{tmp_path}/x[[]1][*]/**/*.onnx"):
        found = find_models(pattern, folder).models
        assert [Path(model).relative_to(folder).as_posix() for model in found] == ["a.onnx", "deep/b.onnx"]
    assert len(find_models("deep/.*.onnx", folder).models) == 1
    for pattern in ("**.onnx", "*\0.onnx"):
        with pytest.raises(DataError, match=r"no pattern of files|no file matches"):
            find_models(pattern, folder)


def test_a_glob_passes_over_what_a_run_has_written(tmp_path):
    """Given by its name, it is a model like others."""
    for name in ("a.onnx", "out/models/a/int8.cpu.onnx", "out/objects/00/model.onnx", "out/b.onnx", "models/c.onnx"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "out" / "zoo.sqlite").touch()
    found = [Path(model).relative_to(tmp_path).as_posix() for model in find_models("**/*.onnx", tmp_path).models]
    assert found == ["a.onnx", "models/c.onnx", "out/b.onnx"]
    assert len(find_models("out/models/a/int8.cpu.onnx", tmp_path).models) == 1


def test_data_are_found_from_any_folder(zoo, monkeypatch):
    """By workers, too, which were started elsewhere."""
    zoo.write_text('[defaults]\ncalib = "calib.tsv"\n[recipes.a]\n[[models]]\npath = "model.onnx"\n')
    monkeypatch.chdir(zoo.parent)
    assert read_zoo(Path("zoo.toml")).jobs[0].sources.calibration == str(zoo.parent / "calib.tsv")


def test_a_wrong_set_is_one_mistake(zoo):
    """And does not ask for another one, to judge budgets on."""
    text = '[defaults]\ncalib = "revews"\nbudgets = { max-drop = 1 }\n[recipes.a]\n[[models]]\npath = "model.onnx"\n'
    (mistake,) = mistakes(zoo, text)
    assert mistake.startswith("2: calib = 'revews': no named set")


def test_recipes_that_are_timed_together_have_as_many_threads(zoo):
    recipes = '[recipes.int8]\nthreads = 2\n[recipes.small]\nmode = "dynamic"\n'
    text = f'[defaults]\ncalib = "reviews"\n{recipes}[[models]]\npath = "model.onnx"\n'
    (mistake,) = mistakes(zoo, text)
    assert mistake.startswith("4: threads of one recipe: recipes of a model are timed together")
    zoo.write_text(f"{text}[run]\ntime = false\n")
    assert [job.working.threads for job in read_zoo(zoo).jobs] == [2, 1]


@pytest.mark.parametrize("path", ["*.onnx", "."])
def test_globs_and_folders_pass_over_what_onnxslim_wrote(zoo, path):
    """And the plan says so; by its name it is taken, and without others it is a mistake."""
    written = zoo.with_name("model.int8.onnx")
    shutil.copy(zoo.with_name("model.onnx"), written)
    with written.open("ab") as file:
        file.write(onnx.ModelProto(metadata_props=[{"key": KEY, "value": "{}"}]).SerializeToString())
    zoo.write_text(f'{HEAD}[[models]]\npath = "{path}"\n')
    plan = read_zoo(zoo)
    assert ([Path(job.source).name for job in plan.jobs], plan.written) == (["model.onnx"], (str(written),))
    zoo.write_text(f'{HEAD}[[models]]\npath = "{path}"\n[[models]]\npath = "model.int8.onnx"\n')
    plan = read_zoo(zoo)
    assert ([job.model for job in plan.jobs], plan.written) == (["model", "model.int8"], ())
    zoo.with_name("model.onnx").unlink()
    zoo.write_text(f'{HEAD}[[models]]\npath = "{path}"\n')
    with pytest.raises(ZooError, match=r"give its source, or model\.int8\.onnx by its name"):
        read_zoo(zoo)


@pytest.mark.parametrize(
    ("stem", "reason"), [("NUL", "on Windows this one is a device"), ("x" * 101, "of at most 100 bytes")]
)
def test_a_stem_that_is_no_name_is_a_mistake(zoo, stem, reason):
    """Another name mends it."""
    (zoo.parent / "model.onnx").rename(zoo.parent / f"{stem}.onnx")
    (line,) = mistakes(zoo, HEAD + f'[[models]]\npath = "{stem}.onnx"\n')
    assert line.startswith("6: give name: needed ")
    assert reason in line
    zoo.write_text(HEAD + f'[[models]]\npath = "{stem}.onnx"\nname = "other"\n')
    assert [job.model for job in read_zoo(zoo).jobs] == ["other"]


def test_names_are_stems_with_folders_where_they_collide():
    sources = ["x/a/model.onnx", "x/b/Model.onnx", "y/b/model.onnx", "s3://k/z/other.onnx", "x/q r.onnx"]
    assert list(names_for(sources, {}).values()) == ["a-model", "x-b-Model", "y-b-model", "other", "q-r"]
    assert names_for(["x/one.onnx", "x/two.onnx"], {"x/one.onnx": "two"}) == {
        "x/one.onnx": "two",
        "x/two.onnx": "x-two",
    }


# mistakes


def test_every_mistake_is_told_with_its_line(zoo):
    write_rows(zoo.parent / "same.tsv", 3, seed=1)
    (zoo.parent / "texts.txt").write_text("one\ntwo\n")
    text = """\
[defaults]
recipes = [
  "int8",
  "dyn",
  "smal",
]
targets = ["cpu", "qn"]
calib = "revews"
rows = "many"
colour = 1
memory = "4 gigs"
timeout = "soon"
seed = true
threads = 0
[defaults.budgets]
max-drop = 1000
min-agreement = nan
[recipes.int8]
mode = "statc"
[recipes.dyn]
mode = "dynamic"
method = "mse"
[recipes.small]
passes = "canonicalize?,prune-fn{keep=0.5}"
mode = "static"
[recipes."a b"]
passes = "fuse{stile=standard}"
[[models]]
path = "nothing/*.onnx"
[[models]]
path = "zoo.toml"
name = "a b"
recipes = ["dyn", "dyn"]
[[models]]
name = "lost"
[[models]]
path = "model.onnx"
recipes = ["int8"]
targets = ["cpu", "qnn"]
tokenizer = "nowhere"
data = "texts.txt"
budgets = { max-drop = 2, min-speedup = 2 }
[run]
time = false
rounds = 5
[modles]
"""
    expected = {
        5: "no recipe 'smal', did you mean 'small'?",
        7: "no target 'qn', did you mean 'qnn'?",
        8: "no named set, and no file",
        9: "rows = 'many': needed a whole number of at least 1",
        10: "no key 'colour' in [defaults]",
        11: "memory: size '4 gigs' is not a number of bytes",
        12: "timeout = 'soon': needed a time like",
        13: "seed = True: needed a whole number of at least 0",
        14: "threads = 0: needed a whole number from 1 to 1024",
        16: "max-drop = 1000: needed a number from -100 to 100",
        17: "min-agreement = nan: needed a number from 0 to 100",
        19: "mode = 'statc': needed one of static, dynamic, weight-only, fp16, fp32, auto, did you mean 'static'?",
        20: "recipe 'dyn' for cpu: method does nothing with mode dynamic; leave it out",
        24: "no pass 'prune-fn', did you mean 'prune-ffn'?",
        25: "mode does nothing with passes",
        26: "recipe 'a b': needed a name of letters, digits",
        27: "fuse has no option 'stile', did you mean 'style'?",
        29: "no file matches",
        32: "name = 'a b': needed a name of letters",
        33: "'dyn' is there twice, which is the same job twice",
        34: "no path: needed a model file, a glob, a folder or a URL",
        39: "qnn takes fixed shapes only: give seq",
        40: "tokenizer",
        42: "max-drop needs labels",
        45: "rounds does nothing with time = false",
        46: "no table [modles], did you mean 'models'?",
    }
    found = mistakes(zoo, text)
    lines = [int(line.partition(":")[0]) for line in found]
    assert lines == sorted(lines)
    assert set(lines) == set(expected)
    for number, part in expected.items():
        assert any(line.startswith(f"{number}: ") and part in line for line in found), (number, part, found)
    assert any(line.startswith("42: min-speedup needs times") for line in found)


@pytest.mark.parametrize(
    ("recipe", "model", "expected"),
    [
        ('mode = "dynamic"\ncalib = "reviews"', "", "4: calib does nothing: no job that it is for reads it"),
        ('mode = "dynamic"\nrows = 5', "", "4: rows does nothing: no job that it is for reads it"),
        ('mode = "dynamic"', "seq = 4", "6: seq does nothing: no job that it is for reads it"),
        ('mode = "static"', "", "2: recipe 'r' for cpu needs calibration texts: give calib"),
        ('passes = "quantize-static"', "", "2: recipe 'r' for cpu needs calibration texts: give calib"),
        ('mode = "dynamic"\nbudgets = {min-agreement = 9}', "", "4: min-agreement of recipe 'r' needs evaluation rows"),
        ('mode = "dynamic"\ndata = "ax"\nbudgets.max-drop = 9', "", "5: max-drop needs labels: ax has none"),
        ('mode = "static"\ncalib = "eval.tsv"\ndata = "./eval.tsv"', "", "5: data is the file of calib"),
        ('mode = "static"\ncalib = "broken.tsv"\ndata = "broken.tsv"', "", "5: data is the file of calib"),
        ('mode = "dynamic"\ndata = "broken.tsv"', "", "4: "),
        ('mode = "static"\ncalib = "model.onnx"', "", "4: calib = 'model.onnx'"),
        ('mode = "dynamic"\nsmooth = false', "", "2: recipe 'r' for cpu: smooth = false does nothing"),
        ('mode = "dynamic"', 'name = "m"\npath = "."', "not TOML: Cannot overwrite a value"),
        ('mode = "dynamic"\nseq = []', "", "4: seq = []: needed a whole number of at least 1, or a list of them"),
        (
            'mode = "dynamic"\ntext-columns = ["a", "b", "c"]',
            "",
            "4: text-columns = ['a', 'b', 'c']: needed one or two",
        ),
        ('mode = "dynamic"\ntimeout = "nan"', "", "4: timeout = 'nan': needed a time"),
        ('mode = "dynamic"\nmemory = 0', "", "4: memory = 0: needed"),
    ],
)
def test_one_mistake(zoo, recipe, model, expected, monkeypatch):
    monkeypatch.setenv("ONNXSLIM_DATA", str(zoo.parent))
    write_rows(zoo.parent / "test.tsv", 3, seed=1)
    (zoo.parent / "ax").mkdir()
    (zoo.parent / "ax" / "test.tsv").write_text("premise\thypothesis\na\tb\n")
    (zoo.parent / "broken.tsv").write_text("sentence\tlabel\none\n")
    found = mistakes(zoo, f'\n[recipes.r]\n{recipe}\n[[models]]\npath = "model.onnx"\n{model}\n')
    assert any(expected in line for line in found), found
    assert len({line for line in found if "broken" not in line}) <= 1, found


@pytest.mark.parametrize(
    "line",
    [
        f'memory = "{"9" * 400}GB"',
        f"timeout = {'9' * 400}",
        f"budgets.min-speedup = {'9' * 400}",
        f'calib = "{"a" * 5000}"',
        f'tokenizer = "{"a" * 5000}"',
        'calib = "a\\u0000b"',
        'data = "/dev/null"',
        "seq = 1979-05-27",
        "budgets = 3",
    ],
)
def test_what_no_one_would_write_is_a_mistake_too(zoo, line):
    first = mistakes(zoo, f'[[models]]\npath = "model.onnx"\n{line}\n[recipes.r]\nmode = "static"\n')[0]
    assert first.startswith("3: ")
    assert len(first) < 400
    assert mistakes(zoo, HEAD + f'[[models]]\npath = "{"a" * 5000}"\n')[0].startswith("6: ")


def test_models_that_share_a_name_or_a_file(zoo):
    (zoo.parent / "b.onnx").write_bytes((zoo.parent / "model.onnx").read_bytes())
    both = '[[models]]\npath = "b.onnx"\nname = "m"\n[[models]]\npath = "model.onnx"\nname = "M"\n'
    assert mistakes(zoo, HEAD + both) == [
        f"10: name 'M' is that of {zoo.parent}/b.onnx, too; give {zoo.parent}/model.onnx another"
    ]
    again = '[[models]]\npath = "b.onnx"\n[[models]]\npath = "./b.onnx"\n'
    assert mistakes(zoo, HEAD + again) == ["6: every file that it matches belongs to a later [[models]]; leave it out"]
    assert mistakes(zoo, HEAD + '[[models]]\npath = "."\nname = "m"\n') == [
        "7: name is for one file, and path matches 2"
    ]


def test_a_model_whose_weights_are_gone_is_planned_as_others(zoo):
    """One bad file ends no zoo: its row says what is wrong with it."""
    (zoo.parent / "model.onnx").write_bytes(fixture("bert-ts17-sdpa").read_bytes()[:-2000])
    zoo.write_text(HEAD + '[[models]]\npath = "*.onnx"\n')
    assert [job.model for job in read_zoo(zoo).jobs] == ["model"]


def test_a_job_has_a_time_limit_by_default(zoo):
    zoo.write_text(HEAD + '[[models]]\npath = "model.onnx"\n')
    assert read_zoo(zoo).jobs[0].timeout == TIMEOUT


def test_a_model_without_tokenizer_is_a_mistake(zoo):
    (zoo.parent / "tokenizer.json").unlink()
    (line,) = mistakes(zoo, HEAD + '[[models]]\npath = "model.onnx"\n')
    assert line == f"6: no tokenizer.json in {zoo.parent}; give tokenizer, a folder or that file"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[defaults]\nrows = \n", "2: not TOML: Invalid value"),
        ("a = 1\n\na = 2\n", "3: not TOML: Cannot overwrite a value"),
        ("a = [1,\n", "2: not TOML: "),
        ("a = " + "[" * 5000, "nested too deeply"),
        ("a" + ".a" * 3000 + " = 1", "nested too deeply"),
        ("[run]\nrounds" + ".a" * 3000 + " = 1", "nested too deeply"),
        ("[defaults]\nrows = " + "[" * 50 + "]" * 50, "nested too deeply"),
        ("[defaults]\nseed = " + "9" * 400, "2: seed = 9999999999"),
        (
            "[defaults]\nrows = 0x" + "f" * 5000,
            "2: rows = a number of thousands of digits: needed a whole number of at least 1, in 64 bits",
        ),
        ("a = " + "1" * 5000, "1: not TOML: "),
        ("", "1: no models: needed at least one [[models]]"),
        ("models = 3\nrecipes = []\nrun = 1\ndefaults = []\n", "3: run = 1: needed a table"),
        ("models = [1, 2]\n", "1: "),
    ],
)
def test_what_is_no_zoo_file(zoo, text, expected):
    zoo.write_text(text)
    with pytest.raises(ZooError) as caught:
        read_zoo(zoo)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("name", "reason"), [("bad.toml", "0xff is not UTF-8"), ("x.toml", "no such file"), (".", "is no regular file")]
)
def test_a_file_that_cannot_be_read(tmp_path, name, reason):
    (tmp_path / "bad.toml").write_bytes(b"a = '\xff'")
    with pytest.raises(ZooError, match=reason):
        read_zoo(tmp_path / name)


def test_a_byte_order_mark_is_no_mistake(zoo):
    zoo.write_text("\ufeff" + HEAD + '[[models]]\npath = "model.onnx"\n', encoding="utf-8")
    assert len(read_zoo(zoo).jobs) == 1
