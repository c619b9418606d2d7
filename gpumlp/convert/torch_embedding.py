"""The layer that reads codes, as a module of PyTorch; it is imported where PyTorch is there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


class EmbeddedColumns(torch.nn.Module):  # type: ignore[misc]  # whose own types may be missing
    """Rows of columns, some of them of codes, in which learned numbers stand in place of each code.

    n_columns    of the rows, (rows, n_columns) numbers
    embeddings   (column, n_categories, n_units) of each column of codes, in the order of the columns
    tables       an nn.Embedding for each, with one row more than there are categories: zeros, for every other code
    """

    def __init__(self, n_columns: int, embeddings: Sequence[tuple[int, int, int]]) -> None:
        super().__init__()
        self.n_columns, self.embeddings = n_columns, tuple(embeddings)
        self.tables = torch.nn.ModuleList(
            torch.nn.Embedding(n_categories + 1, n_units, padding_idx=n_categories)
            for _, n_categories, n_units in self.embeddings
        )

    def forward(self, x: Any) -> Any:
        """Return (rows, as many numbers as the first layer reads)."""
        parts, begin = [], 0
        for (column, n_categories, _), table in zip(self.embeddings, self.tables, strict=True):
            code = x[:, column]
            known = (code >= 0) & (code < n_categories) & (code == code.floor())
            parts += [x[:, begin:column], table(torch.where(known, code, n_categories).long())]
            begin = column + 1
        return torch.cat([*parts, x[:, begin:]], dim=1)

    def __repr__(self) -> str:
        return f"EmbeddedColumns({self.n_columns}, {list(self.embeddings)})"
