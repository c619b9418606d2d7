"""The command line, `gpumlp train | sweep | predict | verify | info | doctor`; nothing else in gpumlp imports typer."""

from gpumlp.cli.app import main

__all__ = ["main"]
