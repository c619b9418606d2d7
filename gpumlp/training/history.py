"""History: what was reported, epoch by epoch and model by model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpumlp.errors import BackendUnavailable, ConfigurationError, unknown_name
from gpumlp.training.monitors import EpochReport


@dataclass(frozen=True)
class Epoch:
    """What is kept of a report: its numbers, and nothing that holds on to data or buffers."""

    epoch: int
    values: dict[str, NDArray[np.float64]]
    seconds: float
    samples_per_second: float


class History:
    """The epochs of one `fit`.

    history["cost"]   (n_epochs, n_models); NaN after a model has stopped
    epochs            (n_epochs,) numbers since the last reset, from 1
    stopped           model id -> why it stopped before the end
    """

    def __init__(self, model_ids: tuple[int, ...], kept: Sequence[Epoch] | None = None) -> None:
        """kept: the epochs, if another keeps them; else `append` adds them."""
        self.model_ids = model_ids
        self.stopped: dict[int, str] = {}
        self._epochs: Sequence[Epoch] = [] if kept is None else kept

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_epochs": list(self._epochs)}  # without what else another keeps

    def append(self, report: EpochReport) -> None:
        """Add an epoch; what is added to the values of its report later is there, too."""
        assert isinstance(self._epochs, list)
        self._epochs.append(Epoch(report.epoch, report.values, report.seconds, report.samples_per_second))

    def state(self) -> dict[str, Any]:
        """Return all of it for a checkpoint: plain values and arrays."""
        return {
            "stopped": {str(model): why for model, why in self.stopped.items()},
            "epochs": self.epochs,
            "seconds": self.seconds,
            "samples_per_second": self.samples_per_second,
            "names": self.names,
            "values": [self[name] for name in self.names],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Become what `state` was returned of."""
        self.stopped = {int(model): why for model, why in state["stopped"].items()}
        columns = [state[name].tolist() for name in ("epochs", "seconds", "samples_per_second")]
        self._epochs = [
            Epoch(epoch, {name: of[i] for name, of in zip(state["names"], state["values"], strict=True)}, *speed)
            for i, (epoch, *speed) in enumerate(zip(*columns, strict=True))
        ]

    def __len__(self) -> int:
        return len(self._epochs)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    @property
    def names(self) -> list[str]:
        """The names of all values that were reported."""
        return list(dict.fromkeys(name for epoch in self._epochs for name in epoch.values))

    @property
    def epochs(self) -> NDArray[np.int64]:
        """The numbers of the epochs."""
        return np.array([epoch.epoch for epoch in self._epochs], np.int64)

    @property
    def seconds(self) -> NDArray[np.float64]:
        """Time of each epoch, without evaluation and monitors."""
        return np.array([epoch.seconds for epoch in self._epochs])

    @property
    def samples_per_second(self) -> NDArray[np.float64]:
        """Rows that each model was trained on per second, by epoch."""
        return np.array([epoch.samples_per_second for epoch in self._epochs])

    def __getitem__(self, name: str) -> NDArray[np.float64]:
        if name not in self.names:
            raise unknown_name("value in the history", name, self.names)
        missing = np.full(len(self.model_ids), np.nan)
        return np.array([epoch.values.get(name, missing) for epoch in self._epochs])

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists, ready for JSON: epoch, seconds, samples_per_second, and each value by epoch and model."""
        return {
            "model_ids": list(self.model_ids),
            "stopped": {str(model): why for model, why in self.stopped.items()},
            "epoch": self.epochs.tolist(),
            "seconds": self.seconds.tolist(),
            "samples_per_second": self.samples_per_second.tolist(),
            **{name: self[name].tolist() for name in self.names},
        }

    def to_frame(self) -> Any:
        """Return a pandas DataFrame with a row for each epoch and model; raise BackendUnavailable without pandas."""
        try:
            import pandas as pd
        except ImportError as error:
            raise BackendUnavailable("History.to_frame needs pandas; install it, or use to_dict") from error
        n_epochs, n_models = len(self), len(self.model_ids)
        return pd.DataFrame(
            {
                "epoch": np.repeat(self.epochs, n_models),
                "model": np.tile(np.array(self.model_ids), n_epochs),
                **{name: self[name].reshape(-1) for name in self.names},
                "seconds": np.repeat(self.seconds, n_models),
                "samples_per_second": np.repeat(self.samples_per_second, n_models),
            }
        )

    def plot(self, path: str | Path | None = None) -> Any:
        """Return a matplotlib figure of costs, and of accuracies where there are any; save it if a path is given.

        Raises BackendUnavailable without matplotlib (extra "plot").
        """
        if not len(self):
            raise ConfigurationError("History.plot has no epoch to show; fit for at least one")
        try:
            from matplotlib.figure import Figure
            from matplotlib.ticker import MaxNLocator
        except ImportError as error:
            raise BackendUnavailable('History.plot needs matplotlib; pip install "gpumlp[plot]"') from error
        panels = [[n for n in self.names if kind in n] for kind in ("cost", "accuracy")]
        panels = [names for names in panels if names]
        figure = Figure(figsize=(6 * len(panels), 4), layout="constrained")
        for i, names in enumerate(panels):
            axes = figure.add_subplot(1, len(panels), i + 1)
            for color, name in enumerate(names):
                lines = axes.plot(
                    self.epochs, self[name], color=f"C{color}", alpha=1 if len(self.model_ids) == 1 else 0.5
                )
                lines[0].set_label(name.replace("_", " "))
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.set_ylabel("accuracy" if "accuracy" in names[0] else "cost")
            axes.grid(alpha=0.3)
            axes.legend()
        if path is not None:
            figure.savefig(path)
        return figure
