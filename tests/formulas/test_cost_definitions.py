import numpy as np
import points
import pytest

from gpumlp.errors import FormulaError
from gpumlp.formulas.activations import ACTIVATIONS, Activation
from gpumlp.formulas.costs import COSTS, Cost
from gpumlp.formulas.output_delta import fits, is_matched, output_delta
from gpumlp.formulas.play import play
from gpumlp.network.architecture import build_architecture


def examples(cost, n_out=3, n=40):
    """Return outputs and targets (n, n_out) inside the domain, away from kinks."""
    rng = np.random.default_rng(2)
    a = points.inside(cost.domain, n * n_out, 1).reshape(n, n_out)
    y = points.inside(cost.targets, n * n_out, 2).reshape(n, n_out)
    if cost.labels == (1.0, -1.0):
        y = rng.choice([-1.0, 1.0], (n, n_out))
    if cost.outer is not None:
        a, y = 0.3 * a, 0.3 * y
    d = np.abs(a - y)
    smooth = ((d > 1e-2) & (np.abs(d - 1) > 1e-2) & (np.abs(y * a - 1) > 1e-2)).all(axis=1)
    return a[smooth], y[smooth]


def cost_of(cost, a, y):
    sums = cost.term(a, y).sum(axis=1)
    return sums if cost.outer is None else cost.outer(sums)


@pytest.mark.parametrize("cost", points.ALL_COSTS, ids=points.by_name)
def test_a_gradient_agrees_with_central_differences(cost):
    a, y = examples(cost)
    assert len(a) > 10
    gradient = cost.gradient(a, y, cost_of(cost, a, y)[:, None])
    h = 1e-6
    for k in range(a.shape[1]):
        step = np.zeros(a.shape[1])
        step[k] = h
        difference = (cost_of(cost, a + step, y) - cost_of(cost, a - step, y)) / (2 * h)
        assert np.allclose(gradient[:, k], difference, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("cost", points.ALL_COSTS, ids=points.by_name)
def test_a_cost_is_least_where_the_outputs_are_the_targets(cost):
    a, y = examples(cost)
    if cost.name in ("hinge", "kullback_leibler", "categorical_cross_entropy"):
        pytest.skip("its least value lies elsewhere, or only among outputs that sum to 1")
    inside = np.clip(y, 1e-3, None) if cost.domain.low == 0 else y
    assert (cost_of(cost, inside, inside) <= cost_of(cost, a, inside) + 1e-12).all()


@pytest.mark.parametrize("pair", points.matched_pairs(), ids=points.by_name)
def test_a_matched_pair_has_exactly_the_delta_a_minus_y(pair):
    cost, f = pair
    z, a, y = points.outputs_and_targets(cost, f)
    assert np.array_equal(play(output_delta(cost, f).delta, z, a, y, np.nan), a - y)


@pytest.mark.parametrize("pair", points.matched_pairs(), ids=points.by_name)
def test_the_delta_of_a_matched_pair_is_the_derivative_of_its_cost(pair):
    """dC/dz by differences, with targets that sum to 1 where the outputs do."""
    cost, f = pair
    rng = np.random.default_rng(0)
    z, y = rng.uniform(-1.5, 1.5, (20, 3)), rng.uniform(0.1, 0.9, (20, 3))
    if f.row_wise:
        y /= y.sum(axis=1, keepdims=True)
    h = 1e-6
    for k in range(3):
        step = np.zeros(3)
        step[k] = h
        difference = (cost_of(cost, f.value(z + step), y) - cost_of(cost, f.value(z - step), y)) / (2 * h)
        assert np.allclose(f.value(z)[:, k] - y[:, k], difference, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("pair", points.matched_pairs(), ids=points.by_name)
def test_the_matched_term_is_the_term(pair):
    cost, f = pair
    if cost.matched_term is None:
        pytest.skip("it has none")
    rng = np.random.default_rng(0)
    z, y = rng.uniform(-4, 4, (50, 3)), rng.uniform(0.05, 0.95, (50, 3))
    y[0], y[1] = 0, 1
    a = f.value(z)
    given = np.log(a) if f.row_wise else z
    assert np.allclose(cost.matched_term(given, a, y), cost.term(a, y), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("pair", points.matched_pairs(), ids=points.by_name)
def test_the_cost_of_a_matched_pair_is_finite_however_wrong_the_network_is(pair):
    cost, f = pair
    z = np.array([-300.0, 300.0, 0.0])
    a = f.value(z)
    given = z - 300 if f.row_wise else z
    for y in (0.0, 1.0):
        assert np.isfinite(play(output_delta(cost, f).term, given, a, np.full(3, y))).all()


def test_a_target_of_zero_adds_nothing():
    a = np.array([0.3])
    for name in ("categorical_cross_entropy", "kullback_leibler"):
        assert COSTS.get(name).term(a, np.array([0.0])) == 0
    assert np.isclose(COSTS.get("cross_entropy").term(a, np.array([0.0])), -np.log(0.7))
    assert COSTS.get("cross_entropy").term(np.array([1.0]), np.array([1.0])) == 0


def values(name, a, y):
    return float(cost_of(COSTS.get(name), np.array([a]), np.array([y]))[0])


def test_costs_have_the_values_that_are_computed_by_hand():
    assert np.isclose(values("quadratic", [1.0, 3.0], [0.0, 1.0]), 2.5)
    assert np.isclose(values("cross_entropy", [0.5, 0.25], [1.0, 0.0]), np.log(2) - np.log(0.75))
    assert np.isclose(values("categorical_cross_entropy", [0.25, 0.75], [1.0, 0.0]), np.log(4))
    assert np.isclose(values("exponential(tau=2)", [1.0, 1.0], [0.0, 0.0]), 2 * np.e)
    assert np.isclose(values("hellinger", [4.0, 1.0], [1.0, 1.0]), 1 / np.sqrt(2))
    assert np.isclose(values("kullback_leibler", [0.5, 0.5], [1.0, 0.0]), np.log(2))
    assert np.isclose(values("generalized_kullback_leibler", [2.0], [1.0]), 1 - np.log(2))
    assert np.isclose(values("itakura_saito", [2.0], [1.0]), np.log(2) - 0.5)
    assert np.isclose(values("mean_absolute", [2.0, -1.0], [0.0, 1.0]), 4)
    assert np.isclose(values("huber", [0.5, 3.0], [0.0, 0.0]), 0.125 + 2.5)
    assert np.isclose(values("poisson", [2.0], [3.0]), 2 - 3 * np.log(2))
    assert np.isclose(values("hinge", [0.5, -2.0], [1.0, -1.0]), 0.5)
    assert set(COSTS) == {
        "quadratic", "cross_entropy", "categorical_cross_entropy", "exponential", "hellinger", "kullback_leibler",
        "generalized_kullback_leibler", "itakura_saito", "mean_absolute", "huber", "poisson", "hinge",
    }, "a new cost needs a value by hand here"  # fmt: skip


# ---------------------------------------------------------------- what goes with what


@pytest.mark.parametrize("f", ACTIVATIONS.definitions(), ids=points.by_name)
@pytest.mark.parametrize("cost", points.ALL_COSTS, ids=points.by_name)
def test_a_misfit_raises_and_names_what_fits(cost, f):
    if fits(cost, f):
        assert build_architecture((2, 3), (), f, cost).cost is cost
        return
    with pytest.raises(FormulaError) as error:
        build_architecture((2, 3), (), f, cost)
    message = str(error.value)
    assert f"cost {cost.name} does not fit output activation {f.name}" in message
    advised = message.rpartition("use ")[2].split(", ")
    assert advised
    for name in advised:
        assert fits(cost, ACTIVATIONS.get(name))


def test_the_outputs_of_a_pair_lie_where_the_cost_is_defined():
    z = np.concatenate([points.reals(), np.linspace(-3, 3, 601)])
    z = z[np.abs(z) < 15]
    for cost, f in points.PAIRS:
        if not f.row_wise:
            a = f.value(z)
            low, high = cost.domain.low, cost.domain.high
            assert (a >= low).all()
            assert (a <= high).all()
            assert cost.domain.low_closed or (a > low).all()


@pytest.mark.parametrize("f", points.ELEMENTWISE, ids=points.by_name)
def test_an_activation_stays_in_its_range(f):
    a = f.value(np.concatenate([points.reals(), np.linspace(-3, 3, 60001)]))
    assert a.min() >= f.range.low
    assert a.max() <= f.range.high


def test_a_matched_cost_needs_its_activation_by_name():
    cross_entropy = COSTS.get("cross_entropy")
    assert is_matched(cross_entropy, ACTIVATIONS.get("logistic"))
    assert not is_matched(cross_entropy, Activation("my sigmoid", lambda z: 1 / (1 + np.exp(-z))))


def test_an_outer_function_needs_a_written_gradient():
    cost = Cost("root", term=lambda a, y: (a - y) ** 2, outer=lambda s: np.sqrt(s))
    with pytest.raises(FormulaError, match=r"outer function; write its gradient"):
        output_delta(cost, ACTIVATIONS.get("identity"))
