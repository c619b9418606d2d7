"""Print what the kernels became: registers, shared memory, 128-bit accesses, occupancy. Needs no GPU.

python tests/kernels/report.py [--arch 80,90,120] [--kernel update,hidden_delta]
"""

import argparse
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cubin
import gates
from every_source import covering, every_source

from gpumlp.backends.cuda.modules import parse_signatures

WARP = 32
REGISTERS_OF_SM = 65536
QUARTERS = 4  # parts of an SM, each with a quarter of the registers
REGISTER_UNIT = 256  # a warp's registers come in multiples of this


class Sm(NamedTuple):
    """What a multiprocessor has: threads and blocks at a time, bytes of shared memory and the unit in which they go."""

    threads: int
    blocks: int
    shared: int
    shared_unit: int = 128


# CUDA C++ Programming Guide, technical specifications per compute capability
SMS = {
    75: Sm(1024, 16, 64 << 10, shared_unit=256),
    80: Sm(2048, 32, 164 << 10),
    86: Sm(1536, 16, 100 << 10),
    89: Sm(1536, 24, 100 << 10),
    90: Sm(2048, 32, 228 << 10),
    100: Sm(2048, 32, 228 << 10),
    120: Sm(1536, 24, 100 << 10),
}


def occupancy(registers, shared, threads, sm):
    """Return the share of an SM's threads that can be there at a time, if all blocks are of this kernel."""
    warps = round_up(threads, WARP) // WARP
    of_a_warp = round_up(registers * WARP, REGISTER_UNIT)
    by_registers = REGISTERS_OF_SM // QUARTERS // of_a_warp * QUARTERS // warps
    by_shared = sm.shared // round_up(shared, sm.shared_unit) if shared else sm.blocks
    blocks = min(sm.blocks, sm.threads // (warps * WARP), by_registers, by_shared)
    return blocks * warps * WARP / sm.threads


def round_up(n, unit):
    return -(-n // unit) * unit


def rows(arch, sources):
    """Return the table's lines for one architecture."""
    with tempfile.TemporaryDirectory() as folder:
        images = [cubin.compile_text(source.text, arch)[0] for source in sources]
        compiled = cubin.inspect(images, arch, Path(folder))
    found = []
    for source, kernels in zip(sources, compiled, strict=True):
        made_for = source.name.partition(" ")[2]
        for k in sorted(kernels, key=lambda kernel: kernel.name):
            share = occupancy(k.registers, k.shared, gates.BUDGETS[k.name].threads, SMS[arch])
            wide = f"{gates.count_wide(k, 'LDG')}/{gates.count_wide(k, 'STG')}"
            found.append(f"{k.name:16}{made_for:48}{arch:5}{k.registers:10}{k.shared:8}{wide:>10}{share:>11.0%}")
    return found


def wanted_sources(kernels):
    """Return a set of sources in which everything occurs; all of them if kernels are named."""
    made = every_source()
    if kernels:
        return [m.source for m in made if kernels & set(parse_signatures(m.source))]
    return [m.source for m in covering(made)]


def parse_arguments():
    def architectures(text):
        return [int(arch) for arch in text.split(",")]

    parser = argparse.ArgumentParser(description="What the kernels became.")
    parser.add_argument("--arch", type=architectures, default=[80, 90, 120], help="such as 80,90; default 80,90,120")
    parser.add_argument("--kernel", default="", help="such as update,softmax; then all that is made of their files")
    given = parser.parse_args()
    given.kernel = set(filter(None, given.kernel.split(",")))
    for unknown in given.kernel - set(gates.BUDGETS):
        parser.error(f"kernel {unknown}: known are {', '.join(gates.BUDGETS)}")
    for unknown in set(given.arch) - set(SMS):
        parser.error(f"architecture {unknown}: known are {', '.join(map(str, SMS))}")
    return given


def main():
    given = parse_arguments()
    if cubin.why_unavailable():
        sys.exit(cubin.why_unavailable())
    sources = wanted_sources(given.kernel)
    print(f"{'kernel':16}{'made for':48}{'sm':>5}{'registers':>10}{'shared':>8}{'wide l/s':>10}{'occupancy':>11}")
    with ProcessPoolExecutor() as pool:
        for found in pool.map(rows, given.arch, [sources] * len(given.arch)):
            print(*found, sep="\n", flush=True)


if __name__ == "__main__":
    main()
