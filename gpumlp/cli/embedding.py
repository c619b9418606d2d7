"""What `--embed` asks for: which categorical columns are embedded, and how many learned numbers a category becomes."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import pow

from gpumlp.data import Encoding
from gpumlp.data.files import listed, shortened
from gpumlp.errors import ConfigurationError
from gpumlp.network.embedding import Embedding
from gpumlp.saved_model import SavedModel

EVERY = "all"
MOST_UNITS = 600


@dataclass(frozen=True)
class Embed:
    """The columns that are embedded.

    every   those of more than two categories, beside the ones that are named
    units   of a named column; None for `usual_units`
    """

    every: bool = False
    units: dict[str, int | None] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return self.every or bool(self.units)


def read_embed(text: str | None) -> Embed:
    """Read "all", "city=8,shop" or both; raise ConfigurationError for what is no number of units."""
    if text is None:
        return Embed()
    parts = [part.strip() for part in text.split(",")]
    units: dict[str, int | None] = {}
    for part in parts:
        if part == EVERY:
            continue
        name, equals, number = part.rpartition("=")
        name = (name if equals else part).strip()
        if not name or name in units:
            raise ConfigurationError(
                f"--embed {shortened(text)!r}: expected each column once, by its name; write {EVERY}, or city=8,shop"
            )
        units[name] = _units(number, name) if equals else None
    return Embed(EVERY in parts, units)


def embeddings_of(columns: Encoding | None, embed: Embed) -> tuple[Embedding, ...]:
    """Return what a network has to learn of the columns of codes."""
    if columns is None:
        return ()
    return tuple(
        Embedding(at, n_categories, embed.units.get(name) or usual_units(n_categories))
        for name, (at, n_categories) in columns.codes.items()
    )


def embedded_in_words(model: SavedModel) -> str:
    """Say which columns are embedded in how many numbers; nothing where none is."""
    if model.columns is None:
        return ""
    widths = zip(model.columns.codes, model.network.architecture.embeddings, strict=True)
    return listed(f"{name} ({each.n_units} numbers)" for name, each in widths)


def usual_units(n_categories: int) -> int:
    """Return how many numbers stand for a category unless something else is asked for: 1.6 n^0.56, 600 at most.

    Source   fastai, emb_sz_rule of its tabular models: a rule of thumb, found by trial
    """
    return min(MOST_UNITS, round(1.6 * pow(n_categories, 0.56)))


def _units(text: str, name: str) -> int:
    try:
        units = int(text)
    except ValueError:
        units = 0
    if units < 1:
        raise ConfigurationError(
            f"--embed {shortened(name)}={shortened(text)}: expected a whole number of at least 1, how many numbers are "
            "learned for a category; write for example city=8"
        )
    return units
