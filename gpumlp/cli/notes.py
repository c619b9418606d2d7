"""What the library logs while a command runs, told to whoever runs it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from gpumlp.cli.errors import tell


class _Teller(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        tell(f"note      {record.getMessage()}")


@contextmanager
def notes_told(wanted: bool) -> Iterator[None]:
    """Tell on stderr, if wanted, what gpumlp logs inside the block, such as that it compiles."""
    if not wanted:
        yield
        return
    logger, teller = logging.getLogger("gpumlp"), _Teller(logging.INFO)
    level = logger.level
    logger.addHandler(teller)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(teller)
        logger.setLevel(level)
