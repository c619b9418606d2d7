"""Watchers: what is told of a sweep while it runs."""

from __future__ import annotations

from collections.abc import Sequence

from gpumlp.ensembles.ledger import Row


class Watcher:
    """Does nothing at any moment; derive from it and override what you need."""

    def sweep_began(self, wanted: int, rows: Sequence[Row]) -> None:
        """Before the first training: how many rows this process wants in all, and those that are there already."""

    def epoch_ended(self, samples: int) -> None:
        """After an epoch of one model, with the number of rows that it was trained on."""

    def row_added(self, row: Row) -> None:
        """After a configuration has been tried and its row has been written."""

    def sweep_ended(self) -> None:
        """After the last row, also after an error or Ctrl-C."""
