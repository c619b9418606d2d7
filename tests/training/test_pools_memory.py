"""Training by pools takes the memory of the pools, however large the file is: in a process with a limit of its own."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux how much memory is taken")

ROWS_OF_A_PART, N_FEATURES = 5000, 256  # 10 MB of float64
PROGRAM = """
import resource, sys
import numpy as np
import gpumlp

def taken(name):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024

class Peak(gpumlp.Monitor):
    most = 0
    def step_ended(self, step):
        self.most = max(self.most, taken("RssAnon"))

backend, kind = sys.argv[2:]
X = np.load(sys.argv[1] + "/X.npy", mmap_mode="r")
y = np.load(sys.argv[1] + "/y.npy", mmap_mode="r")
net = gpumlp.Network((256, 4, 3), "tanh", "softmax", "categorical_cross_entropy", dtype=kind, backend=backend)
trainer, peak = gpumlp.Trainer(net, batch_size=200), Peak()
trainer.fit(np.array(X[:2000]), np.array(y[:2000]), 1, pool="2MB")
limit = taken("VmData") + 30_000_000
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
before = taken("RssAnon")
trainer.fit(X, y, 2, pool="4MB", monitors=[peak])
assert trainer.epoch_count == 3
try:
    np.array(X)
    fits = True
except MemoryError:
    fits = False
print(peak.most - before, fits)
"""


def peak_of(folder, parts, backend, dtype):
    """Return by how much anonymous memory grew while training, and whether the file fits into what is allowed."""
    n = parts * ROWS_OF_A_PART
    X = np.lib.format.open_memmap(folder / "X.npy", "w+", np.float64, (n, N_FEATURES))
    for start in range(0, n, ROWS_OF_A_PART):
        X[start : start + ROWS_OF_A_PART] = start / n
    X.flush()
    np.save(folder / "y.npy", np.arange(n) % 3)
    command = [sys.executable, "-c", PROGRAM, str(folder), backend, dtype]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    grown, fits = ended.stdout.split()
    return int(grown), fits == "True"


@pytest.mark.parametrize("dtype", ["float32", "float64"])  # of the network: the file is cast, or read in place
@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_memory_does_not_grow_with_the_file(backend, dtype, tmp_path):
    (small, fits), (large, no_longer_fits) = (peak_of(tmp_path, parts, backend, dtype) for parts in (1, 8))
    assert fits
    assert not no_longer_fits
    assert large < 12_000_000  # of 82 MB
    assert large - small < 4_000_000
