"""What a compiled kernel must keep to, on every architecture, for a kernel to be fast and its sums to be repeatable."""

import re
from typing import NamedTuple

from gpumlp.backends.cuda.backend import THREADS

ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)
REGISTERS_OF_BLOCK = 65536


class Budget(NamedTuple):
    """What a kernel may use: threads a block, registers a thread; whether it loads and stores 16 bytes at a time."""

    threads: int
    registers: int
    wide_loads: bool = False
    wide_stores: bool = False


# Registers are the most that was measured with NVRTC 13.5, plus a few. hidden_delta takes more than 64 only for silu
# and mish under dropout, and for models that differ.
BUDGETS = {
    "gather_batch": Budget(THREADS, 76, wide_loads=True, wide_stores=True),
    "embed": Budget(THREADS, 48, wide_stores=True),
    "sum_by_code": Budget(THREADS, 68),
    "bias_activation": Budget(THREADS, 68, wide_loads=True, wide_stores=True),
    "output_delta": Budget(THREADS, 108),
    "evaluate": Budget(THREADS, 96),
    "softmax": Budget(THREADS, 72),
    "hidden_delta": Budget(THREADS, 96, wide_loads=True, wide_stores=True),
    "gradient_norm": Budget(THREADS, 48, wide_loads=True),
    "normalise_rows": Budget(THREADS, 92, wide_loads=True, wide_stores=True),
    "normalise_batch": Budget(THREADS, 76, wide_loads=True, wide_stores=True),
    "rows_delta": Budget(THREADS, 96, wide_loads=True, wide_stores=True),
    "batch_statistics": Budget(THREADS, 88, wide_loads=True),
    "gamma_gradients": Budget(THREADS, 68, wide_loads=True),
    "batch_delta": Budget(THREADS, 72, wide_loads=True, wide_stores=True),
    "update": Budget(THREADS, 88, wide_loads=True, wide_stores=True),
    "finite_models": Budget(THREADS, 48, wide_loads=True),
}


def complaints(kernel, budget):
    """Return what is wrong with a compiled kernel, in words; nothing if it keeps to its budget."""
    gates = (uses_local_memory, lacks_wide_access, uses_atomics, exceeds_registers)
    return [found for gate in gates if (found := gate(kernel, budget))]


def uses_local_memory(kernel, budget):
    """Spilled registers and arrays that are indexed at run time live in local memory, which is not local at all."""
    accesses = sorted({i for i in kernel.instructions if i.startswith(("LDL", "STL"))})
    if kernel.stack or kernel.local or accesses:
        return f"{kernel.stack} bytes of stack, {kernel.local} of local memory, {' '.join(accesses) or 'no access'}"
    return ""


def lacks_wide_access(kernel, budget):
    """A streaming kernel reaches the bandwidth of memory by vectors of 16 bytes."""
    missing = [
        operation
        for operation, wanted in (("LDG", budget.wide_loads), ("STG", budget.wide_stores))
        if wanted and not count_wide(kernel, operation)
    ]
    return f"no 128-bit {' and no 128-bit '.join(missing)}" if missing else ""


def uses_atomics(kernel, budget):
    """Atomic sums of floating-point numbers depend on who comes first. Tickets, which count in integers, are allowed.

    So is nothing else: an exchange in a loop could be such a sum in disguise.
    """
    refused = sorted({i for i in kernel.instructions if is_atomic(i) and not is_ticket(i)})
    return f"atomics that are no tickets: {' '.join(refused)}" if refused else ""


def exceeds_registers(kernel, budget):
    """More registers mean fewer threads at a time, and beyond 65,536 in a block it cannot be launched."""
    if kernel.registers > budget.registers:
        return f"{kernel.registers} registers, expected at most {budget.registers}"
    if kernel.registers * budget.threads > REGISTERS_OF_BLOCK:
        return f"{kernel.registers} registers for {budget.threads} threads cannot be launched"
    return ""


def count_wide(kernel, operation):
    """Return how many instructions load (LDG) or store (STG) 16 bytes, or more, of device memory at once."""
    return sum(bool(re.match(rf"{operation}\b.*\.(128|256)\b", i)) for i in kernel.instructions)


def is_atomic(instruction):
    """Tell whether an instruction is a read-modify-write; REDUX, which adds over a warp, is none."""
    return bool(re.match(r"(ATOM[GS]?|RED[GS]?|SUATOM|SURED|UATOM\w*|URED\w*)\b", instruction))


def is_ticket(instruction):
    """Tell whether an atomic adds an integer in device memory."""
    operation, *modifiers = instruction.split(".")
    exact = not any(re.fullmatch(r"B?F\d+\w*|CAS\w*", m) for m in modifiers)
    return operation in ("ATOM", "ATOMG") and "ADD" in modifiers and exact
