"""The functions that run other functions: threads that go through a program of compiled calls without Python.

Written as `numba_kernels`, and compiled like these. A program is what `numba_program` lays out: for each thread, its
calls in each segment; behind each segment all threads wait for each other. A call is two cells: a function's address
and that of its arguments.

    program    cells: n_threads, n_segments, address of the calls, address of the bounds, address of the count of
               arrivals, that count before the run, addresses of what yields the processor and of what sleeps
    bounds     (n_threads, n_segments + 1): where each thread's calls of each segment begin and end
    mailbox    16 cells for each helper: ticket, the last ticket done, a program's address or 0 to go home
"""

from __future__ import annotations

from typing import Any

from numba import carray

from gpumlp.backends.numba_native import (
    add_shared,
    call_at,
    gemm_at,
    idle_at,
    load_shared,
    pointer,
    relax,
    store_shared,
)

Int = Any
whole: Any = int

SPINS = 20_000  # rounds of waiting, some hundred microseconds, before a thread lets others use its processor
YIELDS = 2_000  # and more rounds, a millisecond or so, before it sleeps
NAP = 50  # microseconds
MAILBOX = 128  # bytes, so that no two threads write to one line of the cache


def run_part(program: Int, thread: Int) -> None:
    """Do one thread's part of a program."""
    head = carray(pointer(program), (8,), whole)
    n_threads, n_segments, arrivals, base = head[0], head[1], head[4], head[5]
    calls, bounds = head[2], carray(pointer(head[3] + 8 * thread * (n_segments + 1)), (n_segments + 1,), whole)
    for segment in range(n_segments):
        for i in range(bounds[segment], bounds[segment + 1]):
            call = carray(pointer(calls + 16 * i), (2,), whole)
            call_at(call[0], call[1])
        if n_threads > 1:
            add_shared(arrivals, 1)
            if thread == 0 or segment < n_segments - 1:
                wait_until(arrivals, base + (segment + 1) * n_threads, head[6], head[7], False)


def wait_until(cell: Int, value: Int, yields: Int, sleeps: Int, may_sleep: Int) -> None:
    """Wait until a cell holds at least a value."""
    rounds = 0
    while load_shared(cell) < value:
        rounds += 1
        if rounds < SPINS:
            relax()
        elif rounds < SPINS + YIELDS or not may_sleep:
            idle_at(yields, 0)
        else:
            idle_at(sleeps, NAP)


def lead(program: Int, mailboxes: Int) -> None:
    """Run a program: give it to the helpers, which are awake, and do the first thread's part."""
    head = carray(pointer(program), (8,), whole)
    head[5] = load_shared(head[4])
    for helper in range(head[0] - 1):
        mailbox = mailboxes + MAILBOX * helper
        store_shared(mailbox + 16, program)
        add_shared(mailbox, 1)
    run_part(program, 0)


def serve(mailbox: Int, thread: Int, yields: Int, sleeps: Int) -> None:
    """Do a helper's part of each program that comes, until it is told to go home."""
    done = load_shared(mailbox + 8)
    while True:
        wait_until(mailbox, done + 1, yields, sleeps, True)
        done += 1
        program = load_shared(mailbox + 16)
        if program != 0:
            run_part(program, thread)
        store_shared(mailbox + 8, done)
        if program == 0:
            break


def dismiss(mailboxes: Int, n: Int) -> None:
    """Tell the first n helpers to go home; they see the ticket only once they can see what it is for."""
    for helper in range(n):
        mailbox = mailboxes + MAILBOX * helper
        store_shared(mailbox + 16, 0)
        add_shared(mailbox, 1)


def multiply(
    gemm: Int, transpose_a: Int, transpose_b: Int, m: Int, n: Int, k: Int, alpha: Int, lda: Int, ldb: Int, beta: Int,
    ldc: Int, n_models: Int, a: Int, a_stride: Int, b: Int, b_stride: Int, c: Int, c_stride: Int,
) -> None:  # fmt: skip
    """Set c = op(a) op(b) for some models: addresses of the BLAS's function, of its numbers, and of the matrices.

    strides   bytes from one model's matrix to the next one's
    """
    for i in range(n_models):
        gemm_at(
            gemm,
            (
                transpose_a, transpose_b, m, n, k, alpha, a + i * a_stride, lda, b + i * b_stride, ldb, beta,
                c + i * c_stride, ldc,
            ),
        )  # fmt: skip
