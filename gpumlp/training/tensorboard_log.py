"""TensorBoardLog: a training as event files that TensorBoard shows while it runs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from gpumlp.errors import BackendUnavailable
from gpumlp.network.network import Network
from gpumlp.training.monitors import EpochReport, Monitor, RunInfo
from gpumlp.training.series import name_of, series_of


class TensorBoardLog(Monitor):
    """Writes all values by epoch into an event file; needs the package tensorboard, and nothing else of TensorFlow's.

    folder       where the file goes; a `fit` that goes on adds another file, and its epochs follow
    histograms   the network whose weights are drawn as a histogram for each layer and model; None: there are none.
                 A mixed stack's include the zeros that stand in for units that a model does not have

    Raises       BackendUnavailable without tensorboard (extra "tensorboard")
    """

    def __init__(self, folder: str | Path, histograms: Network | None = None) -> None:
        try:
            import tensorboard  # noqa: F401  # is there; what it writes with is loaded when training begins
        except ImportError as error:
            raise BackendUnavailable('TensorBoardLog needs tensorboard; pip install "gpumlp[tensorboard]"') from error
        self.folder, self._net = Path(folder), histograms
        self._writer: Any = None
        self._model_ids: tuple[int, ...] = ()

    def training_began(self, run: RunInfo) -> None:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._writer, self._model_ids = EventFileWriter(str(self.folder)), run.model_ids

    def epoch_ended(self, report: EpochReport) -> None:
        from tensorboard.plugins.histogram.summary_v2 import histogram_pb
        from tensorboard.plugins.scalar.summary_v2 import scalar_pb

        for name, value in series_of(report, self._model_ids):
            self._add(scalar_pb(name, np.float32(value)), report.epoch)
        for l, weights in enumerate([] if self._net is None else self._net.weights):
            for W, model in zip(weights, self._model_ids, strict=True):
                self._add(histogram_pb(name_of(f"weights {l}", model, self._model_ids), W), report.epoch)
        self._writer.flush()

    def _add(self, summary: Any, epoch: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._writer.add_event(Event(wall_time=time.time(), step=epoch, summary=summary))

    def training_ended(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
