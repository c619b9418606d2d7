"""What bounds a training step from below: its matrix products alone, and the bytes that it must move.

Nothing here uses gpumlp's own code for a CPU: the products are NumPy's, with the threads that its BLAS takes by itself,
and the bandwidth is that of plain copies. They are what a result is compared with.

The limit of a step is the time of its products alone plus that of its unavoidable bytes. The bytes are those that even
a step whose elementwise work is fused into the products must move, of 4 bytes (s) a value:

    rows of the batch, read                     s batch in_features
    parameters and the rule's state, read and   2 s n_params (1 + n_state): 24 bytes a parameter for Adam, 16 for
    written                                     momentum, 8 for plain descent

What is not counted can stay in registers and caches: z, a and delta, on which a fused step works while a product's tile
is there, and the gradient. A copy of arrays as large as these bytes gives the bandwidth, so that a step whose
parameters stay in a cache is held to the cache's. The limit is no law: where a BLAS divides small products among more
threads than they are worth, products done otherwise are faster than NumPy's, and the share of the limit exceeds 1.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from pathlib import Path
from time import perf_counter

import numpy as np

from gpumlp.backends import threads
from gpumlp.backends.select import get_backend
from gpumlp.bench.contest import CUDA, HOST, meter
from gpumlp.bench.timing import Runner, repeating, settle, take, warm_up
from gpumlp.bench.workloads import Workload
from gpumlp.formulas.update_rules import RULES
from gpumlp.shapes import HostArray

VALUE = 4  # bytes
SMALLEST, LARGEST = 2**20, 2**28  # bytes of the arrays of a copy, both together
COPY_SECONDS, COPIES = 0.01, 5
TRIES = 3  # samples of each form of the products

Product = tuple[HostArray, HostArray, HostArray]  # factor, factor, result
Arrays = list[HostArray]


def products_alone(workload: Workload, device: str, place: str) -> tuple[Runner, str]:
    """Return the products of a step at a place, and how they are done, in words.

    On the host, a stack whose models share their input is tried in two forms, of which the faster is taken: a product
    for each model, and one product for the first layer of all models.
    """
    stacked, how = runner_at(step_products(workload), device, place)
    if workload.n_models == 1 or place != HOST:
        return stacked, how
    if _folded_is_faster(workload):
        return product_runner(step_products(workload, folded=True)), f"{how}, the first layer of all models as one"
    return stacked, f"{how}, a product for each model"


@cache
def _folded_is_faster(workload: Workload) -> bool:
    forms = [product_runner(step_products(workload, folded)) for folded in (False, True)]
    units = [warm_up(form, COPY_SECONDS) for form in forms]
    times = np.array([[take(form, n).seconds for form, n in zip(forms, units, strict=True)] for _ in range(TRIES)])
    stacked, folded = np.median(times, axis=0)
    return bool(folded < stacked)


def step_products(workload: Workload, folded: bool = False) -> list[Product]:
    """Return the factors and results of a step's products, in order: z forward, dW and g backward.

    folded   whether the first layer of all models is one product
    """
    sizes, n, m = workload.sizes, workload.batch, workload.n_models
    last = len(sizes) - 2
    a0, W, a, delta = _operands(sizes, n, m, folded)
    dW = [np.empty_like(w) for w in W]
    found: list[Product] = []
    for l, w in enumerate(W):
        if l == 0 and folded:
            found.append((a0[0], w.reshape(-1, sizes[0]).T, _joined(a[0])))
        else:
            found.append((a0 if l == 0 else a[l - 1], w.swapaxes(1, 2), a[l]))
    for l in range(last, -1, -1):
        if l == 0 and folded:
            found.append((_joined(delta[0]).T, a0[0], dW[0].reshape(-1, sizes[0])))
        else:
            found.append((delta[l].swapaxes(1, 2), a0 if l == 0 else a[l - 1], dW[l]))
        if l:
            found.append((delta[l], W[l], delta[l - 1]))
    return found


def delta_products(n_layers: int, width: int, batch: int) -> list[Product]:
    """Return the factors and results of the recursion's products: g = delta W, from the last layer to the first."""
    random = np.random.default_rng(0)
    delta = [random.standard_normal((1, batch, width), np.float32) for _ in range(n_layers)]
    W = [_weights(random, (1, width, width)) for _ in range(n_layers)]
    return [(delta[l], W[l], delta[l - 1]) for l in range(n_layers - 1, 0, -1)]


def product_runner(products: list[Product]) -> Runner:
    """Return what performs products into arrays that are there."""

    def work(n: int) -> None:
        for _ in range(n):
            for x, y, out in products:
                np.matmul(x, y, out=out)

    return Runner(work)


def step_bytes(workload: Workload) -> int:
    """Return the bytes that a step must move; see the head of this file."""
    n_state = len(RULES.get(workload.rule).state)
    rows = VALUE * workload.batch * workload.sizes[0]
    return rows + 2 * VALUE * workload.n_params * (1 + n_state)


def limit(n_bytes: int, device: str, products: float, place: str) -> float:
    """Return the lower limit in seconds: the time of the products and that of the bytes, at a place."""
    return products + n_bytes / (bandwidth(n_bytes) if place == HOST else device_bandwidth(device))


def runner_at(products: list[Product], device: str, place: str) -> tuple[Runner, str]:
    """Return products as they are done at a place, and how, in words."""
    if place == HOST:
        return product_runner(products), "np.matmul"
    return device_runner(products, device, place.removeprefix(f"{CUDA} ")), "cuBLAS, as one graph"


def device_runner(products: list[Product], device: str, precision: str) -> Runner:
    """Return products of the same shapes by cuBLAS, through the backend's own `linear`, as one graph."""
    backend = get_backend("cuda", device, None, precision)
    held = []
    for x, y, out in products:
        n_models = out.shape[0]
        W = np.ascontiguousarray(np.broadcast_to(y.swapaxes(1, 2), (n_models, y.shape[2], y.shape[1])))
        held.append((backend.asarray(np.ascontiguousarray(x)), backend.asarray(W), backend.empty(out.shape)))

    def step() -> None:
        for a, W, z in held:
            backend.linear(a, W, z)

    return Runner(repeating(backend, step), events=meter(device).timed)


@cache
def device_bandwidth(device: str) -> float:
    """Return bytes a second, read and written, of a copy on a device."""
    n_bytes = LARGEST
    return float(2 * n_bytes / min(meter(device).seconds(meter(device).copying(n_bytes), 10, COPIES)))


def bandwidth(n_bytes: int) -> float:
    """Return bytes a second, read and written, of copies whose arrays are together as large as `n_bytes`.

    Sizes are rounded up to a power of 4, up to the largest, which no cache holds. Measured once each.
    """
    size = SMALLEST
    while size < min(n_bytes, largest()):
        size *= 4
    return _copy_rate(min(size, largest()))


def largest() -> int:
    """Return the bytes of arrays that no cache of this machine holds."""
    return max(LARGEST, 4 * _last_level_cache())


@cache
def _copy_rate(n_bytes: int) -> float:
    """Return the rate of a copy by as many threads as gpumlp uses: the fastest of some samples.

    NumPy copies without Python's lock. Each thread repeats its part, so that handing over does not count.
    """
    n_threads = threads.count()
    src = np.ones(n_bytes // 8, np.float32)
    out = np.zeros_like(src)
    parts = list(zip(np.array_split(src, n_threads), np.array_split(out, n_threads), strict=True))
    settle()
    with ThreadPoolExecutor(n_threads) as pool:

        def seconds(times: int) -> float:
            began = perf_counter()
            list(pool.map(lambda part: _copy(part[0], part[1], times), parts))
            return perf_counter() - began

        seconds(1)
        times = max(1, round(COPY_SECONDS / seconds(1)))
        return n_bytes * times / min(seconds(times) for _ in range(COPIES))


def _copy(src: HostArray, out: HostArray, times: int) -> None:
    for _ in range(times):
        np.copyto(out, src)


@cache
def _last_level_cache() -> int:
    """Return its bytes; 0 where the system does not tell."""
    units = {"K": 2**10, "M": 2**20, "G": 2**30}
    found = 0
    for place in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = place.read_text().strip()
        if text[:-1].isdigit():
            found = max(found, int(text[:-1]) * units.get(text[-1], 1))
    return found


def _operands(sizes: tuple[int, ...], n: int, m: int, folded: bool) -> tuple[HostArray, Arrays, Arrays, Arrays]:
    """Return a0 (1, batch, in_features), and W, a, delta of each layer; finite, and so are all their products."""
    random = np.random.default_rng(0)
    a0 = random.standard_normal((1, n, sizes[0]), np.float32)
    W = [_weights(random, (m, o, i)) for i, o in pairwise(sizes)]
    a, delta = ([_units(random, n, m, size, folded and l == 0) for l, size in enumerate(sizes[1:])] for _ in range(2))
    return a0, W, a, delta


def _weights(random: np.random.Generator, shape: tuple[int, ...]) -> HostArray:
    W: HostArray = random.standard_normal(shape, np.float32)
    W /= np.float32(np.sqrt(shape[-1]))
    return W


def _units(random: np.random.Generator, n: int, m: int, size: int, joined: bool) -> HostArray:
    """Return (n_models, batch, size); joined: so that the models' units of a row are neighbours in memory."""
    units: HostArray = random.standard_normal((n, m, size) if joined else (m, n, size), np.float32)
    return units.swapaxes(0, 1) if joined else units


def _joined(x: HostArray) -> HostArray:
    """Return the same memory as (batch, n_models * size)."""
    rows: HostArray = x.swapaxes(0, 1).reshape(x.shape[1], -1)
    return rows
