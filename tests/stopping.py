"""A monitor that stops models."""

import numpy as np

import gpumlp


class StopAt(gpumlp.Monitor):
    """Stops each model after an epoch of its own."""

    def __init__(self, ends):
        self.ends = np.asarray(ends)

    def epoch_ended(self, report):
        return gpumlp.Stop("enough", self.ends <= report.epoch)
