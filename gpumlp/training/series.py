"""Series: a report as single numbers with names, one for each model, as programs that draw curves take them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gpumlp.training.monitors import EpochReport


def series_of(report: EpochReport, model_ids: Sequence[int]) -> Iterator[tuple[str, float]]:
    """Yield name and number of each value of each model that was trained, and the samples per second.

    A network by itself has "cost", model 3 of a stack "cost/model 3".
    """
    for name, values in report.values.items():
        for value, model, active in zip(values, model_ids, report.active, strict=True):
            if active:
                yield name_of(name, model, model_ids), float(value)
    yield "samples_per_second", report.samples_per_second


def name_of(name: str, model: int, model_ids: Sequence[int]) -> str:
    """Return the name of a model's series."""
    return name if len(model_ids) == 1 else f"{name}/model {model}"
