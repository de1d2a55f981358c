"""`onnxslim zoo`: many models in one run."""

import click

from onnxslim_bert.cli import Commands

COMMANDS = {
    "init": "Write a zoo file for the models in a folder.",
    "run": "Make, prove and time what is missing.",
    "status": "Say how far a run is.",
    "retry": "Forget failures, so that the next run tries again.",
    "gc": "Delete what no job of the last run needs.",
    "diff": "Compare two runs, and fail on a regression.",
}


@click.group(cls=Commands, table=COMMANDS, prefix="zoo_")
def zoo() -> None:
    """Optimize many models with many recipes for many targets: one job each, in a process of its own.

    \b
    onnxslim zoo init exports -o zoo.toml
    onnxslim zoo run zoo.toml -o out
    onnxslim zoo status out
    onnxslim zoo diff out-1.4 out
    onnxslim report out -o report.html
    """
