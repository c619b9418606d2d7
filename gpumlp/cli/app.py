"""The commands under one name, and what a command line comes to: an exit status."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from gpumlp import __version__
from gpumlp.cli.bench import bench
from gpumlp.cli.convert import convert
from gpumlp.cli.doctor import doctor
from gpumlp.cli.errors import exit_status
from gpumlp.cli.export import export
from gpumlp.cli.info import info
from gpumlp.cli.plan import plan
from gpumlp.cli.predict import predict
from gpumlp.cli.sweep import sweep
from gpumlp.cli.train import train
from gpumlp.cli.verify import verify

app = typer.Typer(name="gpumlp", add_completion=False, pretty_exceptions_enable=False)
for command in (train, sweep, plan, predict, convert, export, verify, info, doctor):
    app.command()(command)
app.add_typer(bench)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"gpumlp {__version__}")
        raise typer.Exit()


@app.callback(invoke_without_command=True)
def about(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Train multi-layer perceptrons on a GPU or any CPU, and use them."""
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())
        raise typer.Exit(2)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line, that of the process by default, and return its exit status; see `exit_status`."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = typer.main.get_command(app)

    def run() -> None:
        with command.make_context("gpumlp", list(arguments), obj=arguments) as ctx:
            command.invoke(ctx)

    return exit_status(run)
