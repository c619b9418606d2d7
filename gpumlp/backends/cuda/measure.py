"""What only CUDA can tell: how long a device takes, what a graph holds, what cuBLASLt offers. For `gpumlp doctor`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from gpumlp.backends.cuda.backend import modules_of
from gpumlp.backends.cuda.device import MEBIBYTE, open_device
from gpumlp.backends.cuda.sources import Source

ADD_TO = """
// total <- total + x; one block, whose threads walk over the n values
extern "C" __global__ void add_to(const real* __restrict__ x, double* total, long long n)
{
    for (long long i = threadIdx.x; i < n; i += blockDim.x) total[i] += x[i];
}
"""
VERBOSE = 1  # cudaGraphDebugDotFlagsVerbose: every label begins with the kind of the node
NODE = re.compile(r'^"graph_\d+_node_\d+"\s*\[', re.MULTILINE)
KIND = re.compile(r'label="\{?\s*([A-Z_]+)')
KERNEL_NAME = re.compile(r"\{ID\s*\|[^|]*\|\s*([^\\}<\s]+)")
MATRICES = {"float32": "CUDA_R_32F", "tf32": "CUDA_R_32F", "bf16": "CUDA_R_16BF", "fp16": "CUDA_R_16F"}
MOST_ALGORITHMS = 16


@dataclass(frozen=True)
class Node:
    """A node of a graph: "KERNEL", "MEMSET", "MEM_ALLOC" and so on, and the kernel's name, if it is one."""

    kind: str
    name: str

    @property
    def is_memory(self) -> bool:
        """Whether it takes or gives back memory."""
        return "ALLOC" in self.kind or "FREE" in self.kind


@dataclass(frozen=True)
class FusedProduct:
    """A product with an epilogue: (batch, inner) times a layer's weights gives (batch, features), for each model.

    epilogue    "RELU_AUX_BIAS", "GELU_AUX_BIAS" on the way forward, "DRELU_BGRAD", "DGELU_BGRAD" on the way back
    precision   "float32", "tf32", "bf16" or "fp16"
    """

    epilogue: str
    precision: str
    batch: int
    inner: int
    features: int
    n_models: int = 1


class Meter:
    """A device with what measures it."""

    def __init__(self, number: int = 0) -> None:
        self._device = open_device(number)
        self._cupy = self._device.cupy

    @property
    def name(self) -> str:
        """The device, as the driver calls it."""
        return self._device.name

    @property
    def emulated(self) -> bool:
        """Whether kernels run on the CPU; such a device says so in its name, and its times mean nothing."""
        return self.name.startswith("Emulated ")

    def facts(self) -> dict[str, Any]:
        """Return what the device and its libraries are."""
        runtime, nvrtc = self._cupy.cuda.runtime, self._cupy.cuda.nvrtc
        cublas: Any = import_module("nvmath.bindings.cublas")
        properties = runtime.getDeviceProperties(self._device.number)
        return {
            "device": self.name,
            "compute_capability": f"{self._device.capability[:-1]}.{self._device.capability[-1]}",
            "memory_bytes": int(properties["totalGlobalMem"]),
            "multiprocessors": int(properties["multiProcessorCount"]),
            "l2_cache_bytes": int(properties["l2CacheSize"]),
            "cuda_driver": _version(runtime.driverGetVersion(), 1000, 10),
            "cuda_runtime": _version(runtime.runtimeGetVersion(), 1000, 10),
            "nvrtc": ".".join(str(n) for n in nvrtc.getVersion()),
            "cublas": _version(cublas.get_version(self._device.cublas), 10000, 100),
        }

    # ---------------------------------------------------------------- time

    def seconds(
        self, work: Callable[[], None], calls: int = 1, samples: int = 9, before: Callable[[], None] | None = None
    ) -> list[float]:
        """Return the device's time of one call of `work`, `samples` times, after a warm-up.

        calls    how often `work` is called between two events; the time is divided by it
        before   called ahead of each sample, outside its time
        """
        with self._device.session():
            self._sample(work, max(calls, 3), before)  # compiles, then records a graph, then replays it
            return [self._sample(work, calls, before) for _ in range(samples)]

    def timed(self, work: Callable[[], None]) -> float:
        """Return the device's time of one call of `work`, which is warm, from an idle device on."""
        with self._device.session():
            return self._sample(work, 1, None)

    def _sample(self, work: Callable[[], None], calls: int, before: Callable[[], None] | None) -> float:
        stream, cuda = self._device.stream, self._cupy.cuda
        began, ended = cuda.Event(), cuda.Event()
        if before is not None:
            before()
        stream.synchronize()
        began.record(stream)
        for _ in range(calls):
            work()
        ended.record(stream)
        ended.synchronize()
        return float(cuda.get_elapsed_time(began, ended)) / 1000 / calls

    # ---------------------------------------------------------------- work to be timed or recorded

    def add_to(self, x: Any, total: Any) -> None:
        """Add x (float32) to total (float64) by a kernel of one block; belongs into `backend.session()`."""
        text = f"using real = float;\n{ADD_TO}"
        kernel = modules_of(self._device.number).kernel(Source("add_to", text, "float32"), "add_to")
        kernel(1, 32, {"x": x, "total": total, "n": x.size})

    def copying(self, n_bytes: int) -> Callable[[], None]:
        """Return a function that copies so many bytes from one place of the device to another."""
        stream = self._device.stream
        with self._device.session():
            src, out = (self._cupy.zeros(n_bytes, np.uint8) for _ in range(2))

        def copy() -> None:
            out.data.copy_from_device_async(src.data, n_bytes, stream)

        return copy

    # ---------------------------------------------------------------- capture

    def why_cupy_product_is_refused(self) -> str:
        """Return the error that CuPy's own matmul raises while a stream is captured; "" if it raises none."""
        stream = self._cupy.cuda.Stream(non_blocking=True)
        with self._cupy.cuda.Device(self._device.number), stream:
            a = self._cupy.ones((64, 64), np.float32)
            out = self._cupy.matmul(a, a)  # loads and allocates what a first product needs
            stream.synchronize()
            stream.begin_capture()
            try:
                self._cupy.matmul(a, a, out=out)
            except Exception as error:  # whatever it is, is the answer
                return f"{type(error).__name__}: {error}"
            finally:
                with suppress(Exception):  # a refused capture may be beyond ending
                    stream.end_capture()
        return ""

    # ---------------------------------------------------------------- cuBLASLt

    def algorithms(self, products: Sequence[FusedProduct]) -> list[int | str]:
        """Return for each product how many algorithms cuBLASLt offers (16 at most), or its error if it has another."""
        lt: Any = import_module("nvmath.bindings.cublasLt")
        with self._device.session():
            handle = lt.create()
            scratch = self._cupy.zeros(256, np.uint8)  # its address stands for those of bias and mask
            try:
                return [_algorithms(lt, handle, product, scratch.data.ptr) for product in products]
            finally:
                lt.destroy(handle)


def graph_nodes(captured: Any) -> list[Node]:
    """Return the nodes of a step that `backend.capture` gave back; raise RuntimeError if it holds no graph."""
    graph = getattr(captured, "graph", None)
    if graph is None:
        raise RuntimeError("no graph was recorded; is GPUMLP_CUDA_GRAPHS=off set?")
    return parse_nodes(graph.debug_dot_str(VERBOSE))


def parse_nodes(text: str) -> list[Node]:
    """Return the nodes that cudaGraphDebugDotPrint has written with the flag Verbose."""
    found = []
    for label in NODE.split(text)[1:]:
        kind, name = KIND.search(label), KERNEL_NAME.search(label)
        found.append(Node(kind[1] if kind else "UNKNOWN", name[1] if name and kind and kind[1] == "KERNEL" else ""))
    return found


def _version(number: int, major: int, minor: int) -> str:
    return f"{number // major}.{number % major // minor}"


def _algorithms(lt: Any, handle: int, product: FusedProduct, address: int) -> int | str:
    """Ask for one product; the objects that describe it live only as long."""
    made: list[tuple[Any, int]] = []
    try:
        operation, *layouts = _describe(lt, product, address, made)
        preference = lt.matmul_preference_create()
        made.append((lt.matmul_preference_destroy, preference))
        wishes = {f"MIN_ALIGNMENT_{x}_BYTES": 16 for x in "ABCD"}
        _set(lt, "matmul_preference", preference, {"MAX_WORKSPACE_BYTES": 32 * MEBIBYTE, **wishes})
        results, count = lt.MatmulHeuristicResult(MOST_ALGORITHMS), np.zeros(1, np.int32)
        lt.matmul_algo_get_heuristic(
            handle, operation, *layouts, preference, MOST_ALGORITHMS, results.ptr, count.ctypes.data
        )
        return int(count[0])
    except lt.cuBLASLtError as error:
        return 0 if "NOT_SUPPORTED" in str(error) else str(error)
    finally:
        for destroy, thing in reversed(made):
            destroy(thing)


def _describe(lt: Any, product: FusedProduct, address: int, made: list[tuple[Any, int]]) -> list[int]:
    """Return the operation and the layouts of A, B, C and D, column-major as in gemm.py; C is D."""
    p, forward = product, product.epilogue.endswith("BIAS")
    types: Any = import_module("nvmath").CudaDataType
    compute: Any = import_module("nvmath.bindings.cublas").ComputeType
    kind = compute.COMPUTE_32F_FAST_TF32 if p.precision == "tf32" else compute.COMPUTE_32F
    operation = lt.matmul_desc_create(int(kind), int(types.CUDA_R_32F))
    made.append((lt.matmul_desc_destroy, operation))
    _set(lt, "matmul_desc", operation, {"TRANSA": int(forward), **_epilogue(lt, p, address)})
    W = (p.inner, p.features) if forward else (p.features, p.inner)
    layouts = []
    for rows, columns in (W, (p.inner, p.batch), (p.features, p.batch), (p.features, p.batch)):
        layout = lt.matrix_layout_create(int(getattr(types, MATRICES[p.precision])), rows, columns, rows)
        made.append((lt.matrix_layout_destroy, layout))
        _set(lt, "matrix_layout", layout, {"BATCH_COUNT": p.n_models, "STRIDED_BATCH_OFFSET": rows * columns})
        layouts.append(layout)
    return [operation, *layouts]


def _epilogue(lt: Any, p: FusedProduct, address: int) -> dict[str, int]:
    """Return the attributes that say what is fused into a product."""
    unit = 128 if "RELU" in p.epilogue else 8  # a mask of bits, or values of z
    ld = -(-p.features // unit) * unit
    attributes = {
        "EPILOGUE": int(lt.Epilogue[p.epilogue]),
        "BIAS_POINTER": address,
        "EPILOGUE_AUX_POINTER": address,
        "EPILOGUE_AUX_LD": ld,
    }
    if p.n_models > 1:
        attributes |= {"BIAS_BATCH_STRIDE": p.features, "EPILOGUE_AUX_BATCH_STRIDE": ld * p.batch}
    return attributes


def _set(lt: Any, kind: str, thing: int, values: dict[str, int]) -> None:
    """Set attributes by name, each in the type that cuBLASLt gives it."""
    names = {
        "matmul_desc": lt.MatmulDescAttribute,
        "matrix_layout": lt.MatrixLayoutAttribute,
        "matmul_preference": lt.MatmulPreferenceAttribute,
    }[kind]
    for name, value in values.items():
        attribute = int(names[name])
        buffer = np.array(value, getattr(lt, f"get_{kind}_attribute_dtype")(attribute))
        getattr(lt, f"{kind}_set_attribute")(thing, attribute, buffer.ctypes.data, buffer.nbytes)
