"""Train under NVIDIA's compute-sanitizer: accesses out of bounds, races, uninitialised reads, barriers. Needs a GPU.

python tests/kernels/sanitize.py [memcheck] [racecheck] [initcheck] [synccheck]
"""

import argparse
import os
import shutil
import subprocess
import sys

import numpy as np

import gpumlp
from gpumlp.network.architecture import build_architecture
from gpumlp.network.members import Member

TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
PLACES = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/cuda/bin"])


def train():
    """Launch every kernel: sums of one chunk, of several and of several groups, rows of a warp and of a block;
    batches in parts, of pools and of folds.
    """
    rng = np.random.default_rng(0)
    X, labels = rng.standard_normal((331, 12)).astype(np.float32), rng.integers(0, 3, 331)
    several = gpumlp.Network((12, 33, 130, 3), "tanh", n_models=3, dropout=0.3, backend="cuda")
    trainer = gpumlp.Trainer(several, "adam", batch_size=300, clip_norm=1.0, l2=0.01)
    trainer.fit(X, labels, 2, validation=(X, labels), sample_weight=rng.uniform(0, 2, 331))
    several.predict(X)
    normalised = gpumlp.Network(
        (12, 33, 130, 132, 3), n_models=2, dropout=0.2, normalisation=["batch", "layer", "batch"], backend="cuda"
    )
    gpumlp.Trainer(normalised, batch_size=300).fit(X, labels, 2, validation=(X, labels))
    mixed = gpumlp.Network.mixed(list(map(member, range(5))), backend="cuda")
    gpumlp.Trainer(mixed, batch_size=300, clip_norm=1.0).fit(X, labels, 2, validation=(X, labels))
    columns = [gpumlp.Embedding(1, 3, 33), gpumlp.Embedding(5, 70, 4)]
    embedded = gpumlp.Network((12, 33, 3), n_models=2, embeddings=columns, backend="cuda")
    codes = X.copy()
    codes[:, [1, 5]] = rng.integers(-1, 3, (331, 2))
    gpumlp.Trainer(embedded, batch_size=300).fit(codes, labels, 2, validation=(codes, labels))
    gpumlp.Trainer(embedded, batch_size=100, micro_batch=64).fit(codes, labels, 2, pool=200)
    folds = gpumlp.Folds((np.arange(190), np.arange(131, 331)), (0, 1, 1, 0, 1))
    gpumlp.Trainer(mixed, batch_size=100).fit(X, labels, 2, folds=folds, validation=folds)
    wide = gpumlp.Network((12, 1028), backend="cuda", dtype="float64")
    gpumlp.Trainer(wide, "sgd", batch_size=40).fit(X[:70], np.arange(70), 2, validation=(X[:35], np.arange(35)))
    wide.predict(X[:5])


def member(m):
    """Return a model of a mixed stack."""
    sizes, kinds = (12, 29 + m, 130 - 3 * m, 3), ["tanh", "gelu" if m % 2 else "relu"]
    net = build_architecture(sizes, kinds, "softmax", "categorical_cross_entropy")
    return Member(net, (0.0, m / 10), model_id=m)


def is_clean(sanitizer, tool):
    command = [sanitizer, "--tool", tool, "--error-exitcode", "1", sys.executable, __file__, "--train"]
    print(f"{tool}:", flush=True)
    return not subprocess.run(command, env={**os.environ, "GPUMLP_CUDA_GRAPHS": "off"}, check=False).returncode


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tools", nargs="*", metavar="TOOL", help=f"{', '.join(TOOLS)}; all if none is named")
    parser.add_argument("--train", action="store_true", help="train without a tool, which is what each tool runs")
    asked = parser.parse_args()
    if unknown := set(asked.tools) - set(TOOLS):
        parser.error(f"no tool {', '.join(sorted(unknown))}: expected {', '.join(TOOLS)}")
    if asked.train:
        return train()
    sanitizer = shutil.which("compute-sanitizer", path=PLACES)
    if sanitizer is None:
        sys.exit("compute-sanitizer is not on PATH: it comes with the CUDA toolkit")
    found = [tool for tool in asked.tools or TOOLS if not is_clean(sanitizer, tool)]
    return sys.exit(f"{' and '.join(found)} found faults" if found else 0)


if __name__ == "__main__":
    main()
