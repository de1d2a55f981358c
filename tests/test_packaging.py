"""What is installed is what lies here."""

import ast
import configparser
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import resources, util
from pathlib import Path

import pytest
from command_line import ROOT

FLAT = ("passes", "calibration")


@pytest.fixture(scope="module")
def config() -> configparser.ConfigParser:
    """setup.cfg."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def lines(text: str) -> list[str]:
    """The values of a list in setup.cfg."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def modules() -> set[str]:
    """Every python file of the package by its path once installed."""
    own = {
        path.relative_to(ROOT) for path in (ROOT / "onnxslim_bert").rglob("*.py")
    }  # links to folders are not followed
    linked = {Path("onnxslim_bert", path.relative_to(ROOT)) for name in FLAT for path in (ROOT / name).glob("*.py")}
    return {path.as_posix() for path in own | linked}


def test_the_packages_are_the_folders_that_hold_python_files(config):
    """A folder that setup.cfg forgets makes a wheel that lacks it, silently."""
    listed = lines(config["options"]["packages"])
    assert sorted(listed) == sorted({str(Path(module).parent).replace("/", ".") for module in modules()})
    for package in listed:
        assert util.find_spec(package), package


@pytest.mark.parametrize("name", FLAT)
def test_the_mapped_folders_are_flat_and_linked(config, name):
    """The same files under one name, in a checkout as in a wheel."""
    link = ROOT / "onnxslim_bert" / name
    assert link.is_symlink()
    assert str(link.readlink()) == f"../{name}"
    assert not [path for path in (ROOT / name).iterdir() if path.is_dir() and path.name != "__pycache__"]
    assert f"onnxslim_bert.{name} = {name}" in lines(config["options"]["package_dir"])


def test_the_built_in_data_are_installed(config):
    patterns = lines(config["options.package_data"]["onnxslim_bert.calibration"])
    shipped = {path for pattern in patterns for path in (ROOT / "calibration").glob(pattern)}
    assert shipped == {path for path in (ROOT / "calibration").rglob("*") if path.suffix not in ("", ".py", ".pyc")}
    assert (resources.files("onnxslim_bert.calibration") / "reviews.tsv").is_file()


def test_the_recipes_that_ship_are_installed(config):
    """And can be read beside the other models too."""
    patterns = lines(config["options.package_data"]["onnxslim_bert.recipes"])
    shipped = ROOT / "onnxslim_bert/recipes"
    assert {path for pattern in patterns for path in shipped.glob(pattern)} == set((shipped / "shipped").iterdir())
    assert (ROOT / "models/recipes").resolve() == shipped / "shipped"


def test_both_scripts_are_the_command_line(config):
    """`onnxslim` may belong to another package; `onnxslim-bert` never does."""
    scripts = dict(line.split(" = ") for line in lines(config["options.entry_points"]["console_scripts"]))
    assert scripts == {"onnxslim": "onnxslim_bert.__main__:main", "onnxslim-bert": "onnxslim_bert.__main__:main"}


def test_torch_is_no_requirement(config):
    required = lines(config["options"]["install_requires"])
    assert not [name for name in required if name.startswith("torch")]
    assert [name for name in lines(config["options.extras_require"]["export"]) if name.startswith("torch")]


def test_the_folders_have_one_import_name():
    """`import passes` would load every module a second time; ruff refuses it, and no file does it."""
    ruff = tomllib.loads((ROOT / "ruff.toml").read_text())["lint"]
    assert "TID" in ruff["select"]
    assert {"passes", "calibration"} <= set(ruff["flake8-tidy-imports"]["banned-api"])
    assert ruff["flake8-tidy-imports"]["ban-relative-imports"] == "all"
    for path in [*ROOT.glob("*/*.py"), *ROOT.glob("onnxslim_bert/*/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not {name.split(".")[0] for name in names} & set(FLAT), path


def test_a_wheel_holds_every_module_and_the_data(tmp_path):
    """Built from a copy, so that nothing is left in the checkout."""
    if util.find_spec("setuptools") is None:
        pytest.skip("no setuptools here to build with")
    checkout = tmp_path / "checkout"
    ignored = shutil.ignore_patterns(".*", "__pycache__", "tests", "tools", "models", "docs", "*.egg-info", "build")
    shutil.copytree(ROOT, checkout, symlinks=True, ignore=ignored)
    built = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(checkout)],
        capture_output=True,
        text=True,
        check=False,
    )
    if "No module named pip" in built.stderr:
        pytest.skip("no pip here to build with")
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name for name in names if name.endswith(".py")} == modules()
    assert {"onnxslim_bert/calibration/reviews.tsv", "onnxslim_bert/targets/arm64/counter.c"} <= names
