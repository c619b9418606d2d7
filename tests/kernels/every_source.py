"""Every module that the CUDA backend can make of the definitions, and smaller sets that still show everything."""

from collections import Counter
from dataclasses import dataclass
from functools import cache
from itertools import chain, combinations, product

from gpumlp.backends.cuda import sources
from gpumlp.backends.cuda.sources import C_TYPES, Source
from gpumlp.formulas.activations import ACTIVATIONS, reads_z
from gpumlp.formulas.costs import COSTS
from gpumlp.formulas.output_delta import fits, output_delta
from gpumlp.formulas.update_rules import RULES

REALS = ("float32", "float64")
EXTRAS = ("clip", "l1", "l2")
# the activations of models that differ in widths alone; of some models; of all; of all that leave no z
MIXTURES = {
    "widths": lambda f: f.name == "tanh",
    "a few": lambda f: f.name in ("gelu", "relu", "tanh"),
    "all": lambda f: True,
    "all in place": lambda f: not reads_z(f),
}
DROPPING = ((False, False), (True, False), (True, True))  # whether there is dropout, and whether models differ in it
LABELS = "int64"  # the dtype of labels, whatever the user's was


@dataclass(frozen=True)
class Made:
    """A source, the function of sources.py that made it, and what went into it: ("rule adam", "real float32")."""

    maker: str
    source: Source
    parts: tuple[str, ...]


@cache
def every_source():
    """Return all that sources.py makes of the registries, with default parameters, for both dtypes."""
    makers = (_bias_activation, _normalising, _hidden_delta, _output_delta, _gather_batch, _update, _fixed)
    return tuple(made for real in REALS for maker in makers for made in maker(real))


def covering(made, together=1, apart=()):
    """Return fewer sources, in which every part still occurs; with together=2 every two parts that occur together.

    Two parts that begin with the two words of `apart` need not meet. Of sources that add as much, the one comes first
    whose parts occurred least often: dtypes, for instance, by turns.
    """
    combined = {
        m: {(m.maker, c) for c in combinations(m.parts, together) if {p.partition(" ")[0] for p in c} != set(apart)}
        for m in made
    }
    missing, chosen, occurred = set().union(*combined.values()), [], Counter()
    while missing:
        best = max(combined, key=lambda m: (len(combined[m] & missing), -sum(occurred[m.maker, p] for p in m.parts)))
        missing -= combined.pop(best)
        occurred.update((best.maker, part) for part in best.parts)
        chosen.append(best)
    return chosen


def _make(maker, arguments, real, *parts):
    return Made(maker, getattr(sources, maker)(*arguments), (*parts, f"real {real}"))


def _units():
    """The activations of single units."""
    return [f for f in ACTIVATIONS.definitions() if not f.row_wise]


def _layers():
    """What the models of a layer may have: kinds, dropout, whether they are mixed, whether their dropout differs."""
    for f, dropout in product(_units(), (False, True)):
        yield (f,), dropout, False, False, (f"activation {f.name}", f"dropout {dropout}")
    kinds = {name: tuple(f for f in _units() if is_one(f)) for name, is_one in MIXTURES.items()}
    for name, (dropout, rates) in product(kinds, DROPPING):
        parts = (f"mixed {name}", f"dropout {dropout}", f"rates {rates}")
        yield kinds[name], dropout, True, rates, parts
    yield kinds["widths"], True, False, True, ("mixed False", "dropout True", "rates True")


def _bias_activation(real):
    # a layer has no z of its own only where the way back does not read it
    for (kinds, dropout, mixed, rates, parts), keeps_z in product(_layers(), (False, True)):
        if keeps_z or not any(map(reads_z, kinds)):
            arguments = (kinds, real, keeps_z, dropout, mixed, rates)
            yield _make("bias_activation", arguments, real, *parts, f"keeps z {keeps_z}")


def _normalising(real):
    for f, dropout, keeps_u in product(_units(), (False, True), (False, True)):
        if not keeps_u and reads_z(f):
            continue
        parts = (f"activation {f.name}", f"dropout {dropout}", f"keeps u {keeps_u}")
        yield _make("normalise_batch", (f, real, keeps_u, dropout), real, *parts)
        for long_rows in (False, True):
            arguments = (f, real, keeps_u, dropout, long_rows)
            yield _make("normalise_rows", arguments, real, *parts, f"long rows {long_rows}")


def _hidden_delta(real):
    for kinds, dropout, mixed, rates, parts in _layers():
        yield _make("hidden_delta", (kinds, real, dropout, mixed, rates), real, *parts)


def _output_delta(real):
    for cost, f, long_rows in product(COSTS.definitions(), ACTIVATIONS.definitions(), (False, True)):
        if fits(cost, f):
            arguments = (output_delta(cost, f), f, real, long_rows)
            parts = (f"cost {cost.name}", f"activation {f.name}", f"long rows {long_rows}")
            yield _make("output_delta", arguments, real, *parts)


def _gather_batch(real):
    for x_dtype, labels, rule in product(C_TYPES, (False, True), (None, *RULES.definitions())):
        arguments = (x_dtype, LABELS if labels else real, labels, rule, real)
        parts = (f"X {x_dtype}", f"labels {labels}", f"rule {rule.name if rule else None}")
        yield _make("gather_batch", arguments, real, *parts)


def _update(real):
    subsets = chain.from_iterable(combinations(EXTRAS, n) for n in range(len(EXTRAS) + 1))
    for rule, extras in product(RULES.definitions(), map(frozenset, subsets)):
        parts = (f"rule {rule.name}", *(f"{extra} {extra in extras}" for extra in EXTRAS))
        yield _make("update", (rule, extras, real), real, *parts)


def _fixed(real):
    for maker in ("embed", "gradient_norm", "finite_models", "batch_statistics"):
        yield _make(maker, (real,), real)
    for maker, long_rows in product(("softmax", "rows_delta"), (False, True)):
        yield _make(maker, (real, long_rows), real, f"long rows {long_rows}")
