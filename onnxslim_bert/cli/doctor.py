"""`onnxslim doctor`: what works on this machine."""

from typing import TYPE_CHECKING

import click

from onnxslim_bert.cli.screen import console, echo, echo_json, plain_table
from onnxslim_bert.cli.targets_option import targets_of

if TYPE_CHECKING:
    from onnxslim_bert.targets.doctor import Checkup
    from onnxslim_bert.targets.target import Target


@click.command(epilog="Exit code: 0; 5 when a provider that --ep names does not work.")
@click.option("--ep", "targets", callback=targets_of, metavar="EP,...", default="cpu", help="Fail unless these work.")
@click.option(
    "--set-up-arm64",
    is_flag=True,
    help="Fetch an emulator of 64-bit ARM, for `validate --ep cpu@arm64`: needs Debian's apt, takes 240 MB.",
)
@click.option(
    "--set-up-arm64-counts",
    is_flag=True,
    help="Also build one that counts instructions, for `bench --ep cpu@arm64`: needs gcc, takes 5 minutes of a CPU.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of tables.")
def doctor(targets: "tuple[Target, ...]", set_up_arm64: bool, set_up_arm64_counts: bool, as_json: bool) -> None:
    """Print what is installed, which providers work here by a run of each, and what this CPU's int8 is worth.

    \b
    onnxslim doctor
    onnxslim doctor --ep qnn,openvino
    onnxslim doctor --set-up-arm64
    onnxslim doctor --set-up-arm64-counts
    """
    from onnxslim_bert.errors import ProviderError
    from onnxslim_bert.targets.arm64 import counting, emulator
    from onnxslim_bert.targets.doctor import examine

    if set_up_arm64 or set_up_arm64_counts:
        emulator.set_up(lambda step: echo(step, err=True))
    if set_up_arm64_counts:
        counting.set_up(lambda step: echo(step, err=True))
    result = examine()
    if as_json:
        echo_json(result.to_json())
    else:
        show(result)
    asked = {target.name for target in targets}
    for check in result.checks:
        if check.target in asked and not check.works:
            raise ProviderError(check.note)


def show(result: "Checkup") -> None:
    """Print the tables and what is to be mended."""
    providers = plain_table("provider", "works here", "")
    for check in result.checks:
        providers.add_row(check.target, "yes" if check.works else "no", f"{check.note} ({check.seconds:.1f} s)")
    packages = plain_table("package", "version")
    for name, version in result.packages.items():
        packages.add_row(name, version or "not installed")
    speed = plain_table("product", "GOPS (10^9 operations a second)")
    for pairing, gops in result.kernels.gops.items():
        speed.add_row(pairing, f"{gops:.0f}")
    host = result.host
    screen = console()
    screen.print(providers, "", packages, "", sep="\n")
    sets = " ".join(result.instruction_sets) or "instruction sets unknown"
    screen.print(f"{host.system}, {host.cpu}, {host.cpus} CPUs, load {host.load}; {sets}", soft_wrap=True)
    screen.print(result.int8.note, "", speed, "", sep="\n", soft_wrap=True)
    for problem in result.problems:
        screen.print(f"! {problem}", soft_wrap=True)
