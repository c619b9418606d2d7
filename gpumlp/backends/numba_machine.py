"""The functions that run other functions: threads that go through a program of compiled calls without Python.

Written as `numba_kernels`, and compiled like these. A program is what `numba_program` lays out: for each thread, its
part of each segment; a segment begins when all parts of the one before are done. A part is a thread's own, but another
that has nothing else to do takes it if it has not been begun: a thread that has no processor just then holds up nobody.
Who does a part changes nothing but the time. A call is two cells: a function's address and that of its arguments.

    program    cells: n_threads, n_segments; addresses of the calls, the bounds, the claims, the counts; number of this
               run, from 1; addresses of what yields the processor and of what sleeps; FINISHED bytes on, the parts
               done in all runs
    bounds     (n_threads, n_segments + 1): where each thread's calls of each segment begin and end
    claims     a line of the cache for each part, (n_segments, n_threads): the last run in which somebody took it
    counts     (n_segments,): how many parts that are not empty lie in this segment and before it
    mailbox    16 cells for each helper: offers, odd while one is open; the last that was answered, plus 1; the program
               that is offered, or 0 to go home
"""

from __future__ import annotations

from typing import Any

from numba import carray

from gpumlp.backends.numba_native import (
    add_shared,
    call_at,
    cycles,
    gemm_at,
    idle_at,
    load_shared,
    pointer,
    relax,
    store_shared,
    swap_shared,
)

Int = Any
Ints = Any
whole: Any = int

SPINS = 2_000  # rounds of waiting, some fifty microseconds, before a thread lets others use its processor
YIELDS = 100  # and more rounds before a helper without a program sleeps
SHARED = 300_000  # cycles, some hundred microseconds, for which nobody is away who has a processor for himself
NAP = 50  # microseconds
LINE = 64  # bytes of the cache that two processors never write to at once
MAILBOX = FINISHED = 128  # bytes, likewise, wherever the first of them lies


def run_part(program: Int, thread: Int) -> None:
    """Do a thread's parts of a program, and what others have not begun when it comes to that."""
    head = carray(pointer(program), (9,), whole)
    n_threads, n_segments, run = head[0], head[1], head[6]
    calls, bounds, claims, behind = head[2], head[3], head[4], carray(pointer(head[5]), (n_segments,), whole)
    finished = program + FINISHED
    for segment in range(n_segments):
        for i in range(n_threads):
            part = (thread + i) % n_threads
            bound = carray(pointer(bounds + 8 * (part * (n_segments + 1) + segment)), (2,), whole)
            if bound[0] == bound[1]:
                continue
            claim = claims + LINE * (segment * n_threads + part)
            if load_shared(claim) < run and swap_shared(claim, run - 1, run) == run - 1:
                do_calls(calls, bound[0], bound[1])
                add_shared(finished, 1)
        if thread == 0 or segment < n_segments - 1:
            wait_until(finished, (run - 1) * behind[n_segments - 1] + behind[segment], head[7], head[8], thread > 0)


def do_calls(calls: Int, first: Int, last: Int) -> None:
    """Call some functions, each with its arguments."""
    for i in range(first, last):
        call = carray(pointer(calls + 16 * i), (2,), whole)
        call_at(call[0], call[1])


def wait_until(cell: Int, value: Int, yields: Int, sleeps: Int, may_sleep: Int) -> None:
    """Wait until a cell holds at least a value."""
    rounds = 0
    while load_shared(cell) < value:
        rounds += 1
        idle(rounds, yields, sleeps, may_sleep)


def idle(rounds: Int, yields: Int, sleeps: Int, may_sleep: Int) -> None:
    """Let some time pass: less and less eagerly.

    A thread that wakes gets a free processor if there is one. One that gives its processor away stays where it is: if
    that takes long, another thread was there, perhaps the very one that is waited for, and a helper sleeps at once.
    """
    if rounds < SPINS:
        relax()
    else:
        began = cycles()
        idle_at(yields, 0)
        if may_sleep and cycles() - began > SHARED:
            idle_at(sleeps, NAP)


def lead(program: Int, mailboxes: Int) -> None:
    """Run a program: offer it to the helpers, which are awake, do all of it that they do not, and take the offers back.

    A helper that has not come by then has not seen the program and never will; one that has is waited for.
    """
    head = carray(pointer(program), (9,), whole)
    n_helpers = head[0] - 1
    if n_helpers == 0:
        bounds = carray(pointer(head[3]), (head[1] + 1,), whole)
        do_calls(head[2], bounds[0], bounds[head[1]])
        return
    head[6] += 1
    for helper in range(n_helpers):
        mailbox = mailboxes + MAILBOX * helper
        store_shared(mailbox + 16, program)
        add_shared(mailbox, 1)
    run_part(program, 0)
    for helper in range(n_helpers):
        take_back(mailboxes + MAILBOX * helper, head[7], head[8])


def take_back(mailbox: Int, yields: Int, sleeps: Int) -> None:
    """Let an offer lapse; if the helper has taken it, wait until it is done."""
    offer = load_shared(mailbox)
    if offer % 2 == 1 and swap_shared(mailbox, offer, offer + 1) == offer:
        store_shared(mailbox + 8, offer + 1)
    else:
        wait_until(mailbox + 8, offer + offer % 2, yields, sleeps, False)


def serve(mailbox: Int, thread: Int, yields: Int, sleeps: Int) -> None:
    """Do a helper's part of each program that it is offered, until it is told to go home."""
    while True:
        offer = await_offer(mailbox, yields, sleeps)
        if swap_shared(mailbox, offer, offer + 1) != offer:
            continue
        program = load_shared(mailbox + 16)
        if program != 0:
            run_part(program, thread)
        store_shared(mailbox + 8, offer + 1)
        if program == 0:
            break


def await_offer(mailbox: Int, yields: Int, sleeps: Int) -> Int:
    """Return the next offer, an odd number."""
    rounds = 0
    while True:
        offer = load_shared(mailbox)
        if offer % 2 == 1:
            return offer
        rounds += 1
        if rounds < SPINS + YIELDS:
            idle(rounds, yields, sleeps, True)
        else:
            idle_at(sleeps, NAP)


def dismiss(mailboxes: Int, n: Int) -> None:
    """Tell the first n helpers to go home; they see the offer only once they can see what it is for."""
    for helper in range(n):
        mailbox = mailboxes + MAILBOX * helper
        store_shared(mailbox + 16, 0)
        add_shared(mailbox, 1)


def recall(mailboxes: Int, first: Int, last: Int, kept: Ints) -> None:
    """Keep helpers that have not read yet that they may go home; set kept[helper] to whether that is so."""
    for helper in range(first, last):
        mailbox = mailboxes + MAILBOX * helper
        offer = load_shared(mailbox)
        kept[helper] = 0
        if offer % 2 == 1 and swap_shared(mailbox, offer, offer + 1) == offer:
            store_shared(mailbox + 8, offer + 1)
            kept[helper] = 1


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
