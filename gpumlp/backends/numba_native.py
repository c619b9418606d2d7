"""What the compiled loops need and Python has no words for: addresses, calls through them, cells that threads share.

An address is an integer of 64 bits. Whoever passes one keeps what lies there alive.
"""

from __future__ import annotations

import platform
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

WORD = ir.IntType(64)
PAUSES = {"x86_64": "llvm.x86.sse2.pause", "amd64": "llvm.x86.sse2.pause"}  # by machine; others spin without


def _pointer(typingctx: Any, address: Any) -> Any:
    """An address as what `carray` takes."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(types.voidptr))

    return types.voidptr(types.int64), build


def _call_at(typingctx: Any, address: Any, cells: Any) -> Any:
    """Call what lies at an address: a function of one address."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [WORD])
        builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), [arguments[1]])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), build


def _gemm_at(typingctx: Any, address: Any, pointers: Any) -> Any:
    """Call the BLAS's gemm at an address, with the 13 addresses of its arguments."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [WORD] * 13)
        given = [builder.extract_value(arguments[1], i) for i in range(13)]
        builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), given)
        return context.get_dummy_value()

    return types.void(types.int64, pointers), build


def _idle_at(typingctx: Any, address: Any, argument: Any) -> Any:
    """Call a function of the operating system that gives the processor away: of one int, which it may ignore."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(ir.IntType(32), [ir.IntType(32)])
        given = builder.trunc(arguments[1], ir.IntType(32))
        builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), [given])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), build


def _load_shared(typingctx: Any, address: Any) -> Any:
    """Read a cell that another thread writes; what it wrote before can be read, too."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load_atomic(builder.inttoptr(arguments[0], WORD.as_pointer()), "acquire", 8)

    return types.int64(types.int64), build


def _store_shared(typingctx: Any, address: Any, value: Any) -> Any:
    """Write a cell that another thread reads, after all that was written before."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.inttoptr(arguments[0], WORD.as_pointer())
        builder.store_atomic(arguments[1], place, "release", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), build


def _add_shared(typingctx: Any, address: Any, value: Any) -> Any:
    """Add to a cell that several threads add to; return what it held."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.inttoptr(arguments[0], WORD.as_pointer())
        return builder.atomic_rmw("add", place, arguments[1], "seq_cst")

    return types.int64(types.int64, types.int64), build


def _swap_shared(typingctx: Any, address: Any, expected: Any, value: Any) -> Any:
    """Write a cell that several threads write to if it holds what is expected; return what it held."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.inttoptr(arguments[0], WORD.as_pointer())
        return builder.extract_value(builder.cmpxchg(place, arguments[1], arguments[2], "seq_cst"), 0)

    return types.int64(types.int64, types.int64, types.int64), build


def _cycles(typingctx: Any) -> Any:
    """Read the processor's counter of time; 0 where only a system may."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if platform.machine().lower() not in PAUSES:
            return ir.Constant(WORD, 0)
        kind = ir.FunctionType(WORD, [])
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.readcyclecounter"), [])

    return types.int64(), build


def _relax(typingctx: Any) -> Any:
    """Tell the processor that this thread waits in a loop."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        name = PAUSES.get(platform.machine().lower())
        if name is not None:
            kind = ir.FunctionType(ir.VoidType(), [])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [])
        return context.get_dummy_value()

    return types.void(), build


pointer, call_at, gemm_at, idle_at = (intrinsic(f) for f in (_pointer, _call_at, _gemm_at, _idle_at))
load_shared, store_shared = intrinsic(_load_shared), intrinsic(_store_shared)
add_shared, swap_shared = intrinsic(_add_shared), intrinsic(_swap_shared)
cycles, relax = intrinsic(_cycles), intrinsic(_relax)
