"""MlflowLog: a training as a run of MLflow."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gpumlp.errors import BackendUnavailable, ConfigurationError
from gpumlp.training.monitors import EpochReport, Monitor, RunInfo
from gpumlp.training.series import series_of

MOST = 1000  # metrics that MLflow takes at once


class MlflowLog(Monitor):
    """Writes parameters, all values by epoch, and files that belong to the training, into one run of MLflow.

    A `fit` that goes on goes on with the run. It ends as FINISHED, FAILED after an error, or KILLED after Ctrl-C.

    uri          of the tracking server or store, such as http://localhost:5000 or sqlite:///mlflow.db
    experiment   name of the experiment, which is made where there is none
    params       name -> value, written beside what is known of the run itself

    run_id       of the run, once training has begun

    Raises       BackendUnavailable without mlflow (extra "mlflow"); ConfigurationError when training begins, if the
                 store does not take the run
    """

    def __init__(self, uri: str, experiment: str = "gpumlp", params: Mapping[str, Any] | None = None) -> None:
        try:
            import mlflow  # noqa: F401  # is there
        except ImportError as error:
            raise BackendUnavailable('MlflowLog needs mlflow; pip install "gpumlp[mlflow]"') from error
        self.uri, self.experiment, self.params = uri, experiment, dict(params or {})
        self.run_id: str | None = None
        self._client: Any = None
        self._model_ids: tuple[int, ...] = ()

    def training_began(self, run: RunInfo) -> None:
        self._model_ids = run.model_ids
        with self._refusals_told():
            if self.run_id is not None:
                self._client.update_run(self.run_id, "RUNNING")
                return
            from mlflow import MlflowClient

            self._client = MlflowClient(tracking_uri=self.uri)
            self.run_id = self._client.create_run(self._experiment_id()).info.run_id
            of_run = {"n_models": run.n_models, "n_rows": run.n_rows, "batch": run.batch, "device": run.device}
            for name, value in (of_run | self.params).items():
                self._client.log_param(self.run_id, name, value)

    def _experiment_id(self) -> str:
        found = self._client.get_experiment_by_name(self.experiment)
        return str(self._client.create_experiment(self.experiment) if found is None else found.experiment_id)

    def epoch_ended(self, report: EpochReport) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, report.epoch) for name, value in series_of(report, self._model_ids)]
        for start in range(0, len(metrics), MOST):
            self._client.log_batch(self.run_id, metrics[start : start + MOST])

    def training_ended(self) -> None:
        if self.run_id is not None:
            error = sys.exc_info()[0]
            status = "FINISHED" if error is None else "KILLED" if error is KeyboardInterrupt else "FAILED"
            self._client.set_terminated(self.run_id, status)

    def add_file(self, path: str | Path) -> None:
        """Store a file, such as the saved model, as an artifact of the run, which may have ended."""
        if self.run_id is None:
            raise ConfigurationError("MlflowLog.add_file has no run to add to; fit with this monitor first")
        with self._refusals_told():
            self._client.log_artifact(self.run_id, str(path))

    @contextmanager
    def _refusals_told(self) -> Iterator[None]:
        """Let what MLflow, its libraries or the way to it refuse name the store."""
        from mlflow.exceptions import MlflowException

        try:
            yield
        except (MlflowException, ImportError, OSError) as error:
            reason = str(error).strip().partition("\n")[0].partition(". ")[0]
            raise ConfigurationError(
                f"MLflow at {self.uri} does not take the run: {reason}; expected the address of a server, or a "
                "database such as sqlite:///mlflow.db"
            ) from error
