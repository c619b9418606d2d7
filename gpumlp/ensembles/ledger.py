"""Ledger: the rows of a sweep in a folder, each written once and for good, so that a sweep that dies goes on."""

from __future__ import annotations

import errno
import fnmatch
import json
import logging
import os
import sys
from contextlib import suppress
from io import RawIOBase
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from gpumlp.atomic import replacing
from gpumlp.errors import ConfigurationError, DataError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

log = logging.getLogger("gpumlp")

Row = dict[str, Any]


class Ledger:
    """Rows by their key: those of all files of a folder, and those that this process adds to a file of its own.

    folder   where the files results*.jsonl lie; it is made if need be. None: rows are kept in memory alone
    shard    (i, n) for part i of n, which has a file of its own; processes of different shards write side by side

    rows     key -> row
    Raises   ConfigurationError where the folder cannot be written to, or another process writes this file now;
             DataError for a file that is damaged
    """

    def __init__(self, folder: str | Path | None = None, shard: tuple[int, int] = (1, 1)) -> None:
        self.rows: dict[str, Row] = {}
        self.path = None if folder is None else Path(folder) / file_name(shard)
        self._file: RawIOBase | None = None
        self._lock: IO[bytes] | None = None

    def __enter__(self) -> Ledger:
        if self.path is None:
            return self
        try:
            self._open(self.path)
        except OSError as error:
            self._close()
            raise ConfigurationError(f"cannot write {self.path} ({error.strerror}); choose another folder") from error
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def add(self, row: Row) -> None:
        """Keep a row unless its key is there already; when this returns, the row has reached the disk."""
        if row["key"] in self.rows:
            return
        if self._file is not None:
            line = json.dumps(row, allow_nan=False).encode() + b"\n"
            try:
                if self._file.write(line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(self._file.fileno())
            except OSError as error:
                raise ConfigurationError(
                    f"cannot write {self.path} ({error.strerror}); make room, then run the same again: it goes on"
                ) from error
        self.rows[row["key"]] = row

    def refresh(self) -> None:
        """Read what other processes have added meanwhile."""
        if self.path is not None:
            self.rows = {**read_folder(self.path.parent), **self.rows}

    def _open(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(path.with_name(f".{path.name}.lock"))
        if not path.exists():
            with replacing(path):
                pass
        _, whole = read_file(path)
        if whole < path.stat().st_size:
            os.truncate(path, whole)
            log.info("the last line of %s was torn; its row is computed again", path)
        self._file = path.open("ab", buffering=0)  # nothing is left to be written when it is closed
        self.refresh()

    def _close(self) -> None:
        for file in (self._file, self._lock):
            if file is not None:
                file.close()
        self._file = self._lock = None


def file_name(shard: tuple[int, int]) -> str:
    """Return the name of the file of a shard."""
    part, parts = shard
    return "results.jsonl" if parts == 1 else f"results-{part}-of-{parts}.jsonl"


def read_folder(folder: Path) -> dict[str, Row]:
    """Return the rows of all files, by key; the first of two with one key counts, in the order of the files' names."""
    found: dict[str, Row] = {}
    # no generator: a Ctrl-C while one is done away with would be lost
    names = os.listdir(folder) if folder.is_dir() else []
    for name in sorted(fnmatch.filter(names, "results*.jsonl")):
        for row in read_file(folder / name)[0]:
            found.setdefault(row["key"], row)
    return found


def read_file(path: Path) -> tuple[list[Row], int]:
    """Return the rows of a file, and how many of its bytes they take; a last line that is torn is left out.

    Raises   DataError if another line is no row
    """
    rows: list[Row] = []
    whole = 0
    content = path.read_bytes()
    lines = content.splitlines(keepends=True)
    for number, line in enumerate(lines, 1):
        row = _row(line)
        if row is None:
            if number < len(lines):
                raise DataError(f"{path}: line {number} is no row of a sweep; move the file away, or mend the line")
            break
        rows.append(row)
        whole += len(line)
    return rows, whole


def _row(line: bytes) -> Row | None:
    """Return the row of a line, None for a line that is none, or that was not written to its end."""
    if not line.endswith(b"\n"):
        return None
    with suppress(ValueError):  # of JSON and of UTF-8
        row = json.loads(line)
        if isinstance(row, dict) and isinstance(row.get("key"), str):
            return row
    return None


def _locked(path: Path) -> IO[bytes]:
    """Return a file that this process alone has locked, until it closes the file or dies.

    Raises   ConfigurationError if another process has; OSError where files cannot be locked
    """
    file = path.open("ab")
    try:
        if sys.platform == "win32":
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        if not isinstance(error, BlockingIOError | PermissionError):  # the latter on Windows
            raise
        raise ConfigurationError(
            f"another process writes into {path.parent} now; wait for it, or give each process its --shard i/n"
        ) from error
    return file
