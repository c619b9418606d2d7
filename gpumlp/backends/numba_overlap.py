"""The update of a layer's weights beside the product that gives another layer's gradient.

An update waits for memory, which one thread alone keeps nearly as busy as all of them do; a product computes. Once a
layer's weights have led the error back to the layer before, nothing in a step reads them any more: they are moved
beside the next gradient, by half of the threads before they compute it and by the others behind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gpumlp.backends.numba_program import Atoms, Pieces, Together
from gpumlp.backends.numpy_shares import address_of, share_memory
from gpumlp.backends.protocol import Array, padded

WORTH_MOVING = 1 << 16  # parameters of a layer: fewer stay in a thread's cache, with their gradient and state


def with_update(items: Sequence[Any], theta: Array, grad: Array, move: Callable[[slice], Atoms]) -> list[Any]:
    """Return a step's items and the update of all parameters: behind them, or beside one of them.

    Nothing is done before an item that does not say what it touches.

    theta, grad   (1, n_params)
    move          move(parameters) -> the stage that moves these; they begin and end at multiples of PADDING
    """
    known = len(items)
    while known and touched_by(items[known - 1]) is not None:
        known -= 1
    gradients = {i: large_gradients(items[i], grad) for i in range(known, len(items))}
    beside: dict[int, list[slice]] = {}
    for begin, end in sorted(set().union(*gradients.values())):
        params = slice(begin, end)
        last = last_to_touch([theta[:, params], grad[:, params]], items, known)
        places = [i for i, others in gradients.items() if i > last and others]
        if places:
            beside.setdefault(places[0], []).append(params)
    found = [Together([*map(move, beside[i]), item]) if i in beside else item for i, item in enumerate(items)]
    rest = all_but([params for some in beside.values() for params in some], theta.shape[1])
    return [*found, Together([move(params) for params in rest])] if rest else found


def touched_by(item: Any) -> Sequence[Array] | None:
    """Return the arrays that an item reads or writes, None if it does not say."""
    return item.touches if isinstance(item, Atoms | Pieces) else None


def large_gradients(item: Any, grad: Array) -> set[tuple[int, int]]:
    """Return where the tensors in grad that an item touches begin and end, with their padding, if they are large."""
    found = set()
    for x in touched_by(item) or ():
        begin = (address_of(x) - address_of(grad)) // grad.itemsize
        end = begin + padded(x.size)
        if x.size >= WORTH_MOVING and begin >= 0 and end <= grad.shape[1]:
            found.add((begin, end))
    return found


def last_to_touch(views: Sequence[Array], items: Sequence[Any], known: int) -> int:
    """Return which of the items from `known` on is the last that touches one of some arrays."""
    return max(
        i
        for i in range(known, len(items))
        if any(share_memory(x, view) for x in touched_by(items[i]) or () for view in views)
    )


def all_but(taken: Sequence[slice], n: int) -> list[slice]:
    """Return what lies between some ranges, none of which overlap, before them and behind them, up to n."""
    ends = [0, *(end for part in sorted((x.start, x.stop) for x in taken) for end in part), n]
    return [slice(begin, end) for begin, end in zip(ends[::2], ends[1::2], strict=True) if begin < end]
