"""`gpumlp convert`: any data set as a data folder, which is mapped and may be larger than memory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gpumlp.cli import options as opt
from gpumlp.cli.errors import tell
from gpumlp.cli.interruption import ending_early
from gpumlp.data import Manifest, open_blocks, verify_folder, write_folder
from gpumlp.data.folder import check_folder_place, free_disk
from gpumlp.data.limits import parse_size
from gpumlp.errors import ConfigurationError

DataFile = Annotated[str, typer.Argument(metavar="DATA", help="A file of any kind that `gpumlp train` takes.")]
Out = Annotated[Path | None, typer.Argument(metavar="OUT.d", help="The data folder to make.")]
NoTarget = Annotated[bool, typer.Option("--no-target", help="All columns are features.")]
Replace = Annotated[bool, typer.Option("--replace", help="A data folder of that name gives way to the new one.")]
MaxSize = Annotated[
    str | None,
    typer.Option(
        "--max-size",
        metavar="SIZE",
        help="What DATA may unpack to and OUT.d take, such as 500GB; three quarters of the free disk by default.",
    ),
]
Verify = Annotated[bool, typer.Option("--verify", help="Compare the checksums of the data folder DATA; no OUT.d.")]


def convert(
    data: DataFile,
    out: Out = None,
    target: opt.Target = None,
    header: opt.Header = None,
    categorical: opt.Categorical = "",
    no_target: NoTarget = False,
    replace: Replace = False,
    max_size: MaxSize = None,
    verify: Verify = False,
) -> None:
    """Write DATA as a data folder, a block at a time: X.npy, Y.npy and manifest.json.

    The folder is a DATA of its own for every command, and is mapped, not read. It appears whole or not at all.

    Values may be missing in the features (NaN, an empty cell): they are counted, and training refuses them.

    Columns of text, and those named by --categorical, are numbers of their texts, which the manifest holds; they come
    back as categorical columns. A value that is missing there is the text "".
    """
    if verify:
        print(in_words(data, verify_folder(data)) + "; the checksums are right")
        return
    if out is None:
        raise ConfigurationError("OUT.d is missing, expected the name of the data folder to make; add it")
    if no_target and target is not None:
        raise ConfigurationError(f"--no-target and --target {target} contradict each other; leave one out")
    check_folder_place(out, replace)
    limit = free_disk(out.parent) if max_size is None else parse_size(max_size, "--max-size")
    blocks = open_blocks(
        data,
        target=target,
        header=opt.header_mode(header),
        with_target=not no_target,
        missing=True,
        limit=limit,
        categorical=opt.column_names(categorical),
    )
    with ending_early():
        manifest = write_folder(blocks, out, replace=replace, max_bytes=limit)
    print(in_words(str(out), manifest))
    if manifest.n_missing:
        n_columns = sum(n > 0 for n in manifest.statistics["X"]["missing"])
        tell(
            f"warning   {manifest.n_missing:,} values are missing in {n_columns:,} columns; training refuses them: "
            "fill them or drop the columns"
        )


def in_words(name: str, manifest: Manifest) -> str:
    """Spell what a data folder holds in one line."""
    X = manifest.arrays["X"]
    target = f"target {manifest.target_name!r}" if manifest.target_name else "a target"
    classes = "" if manifest.classes is None else f" of {len(manifest.classes):,} classes"
    of_these = f", {manifest.n_categorical:,} of these categorical" if manifest.n_categorical else ""
    return f"{name}: {manifest.rows:,} rows, {X['shape'][1]:,} features ({X['dtype']}){of_these}, " + (
        target + classes if "Y" in manifest.arrays else "no target"
    )
