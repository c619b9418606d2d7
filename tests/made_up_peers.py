"""Libraries that are gpumlp in disguise: one that does the same, and one that arrives elsewhere."""

import numpy as np

from gpumlp.bench.workloads import ReadyStep


class Twin:
    """gpumlp once more, as if it were another."""

    name, launch = "twin", 2

    def __init__(self, workload, mode, device, initial):
        self.ready = ReadyStep(workload, "numpy", shuffle=False)
        self.asked, self.tuned = [], False

    @classmethod
    def why_not(cls, workload, device):
        return "" if workload.n_models == 1 else "is for one model"

    def run(self, steps):
        self.asked.append(steps)
        self.ready.run(steps)

    def tune(self):
        self.tuned = True
        return "two steps at once"

    def weights(self):
        return self.ready.net.weights


class Astray(Twin):
    name = "astray"

    def weights(self):
        return [W + 0.01 * np.sign(W) for W in super().weights()]
