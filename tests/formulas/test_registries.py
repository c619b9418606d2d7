import math

import numpy as np
import pytest

import gpumlp
from gpumlp.errors import ConfigurationError, GpumlpError, UnknownName
from gpumlp.formulas.activations import ACTIVATIONS, prime_recording
from gpumlp.formulas.costs import COSTS
from gpumlp.formulas.register import REGISTRIES
from gpumlp.formulas.registry import Interval
from gpumlp.formulas.term import record
from gpumlp.formulas.update_rules import RULES
from gpumlp.formulas.vocabulary import absolute, power, sign

ALL = [ACTIVATIONS, COSTS, RULES]


@pytest.fixture
def registered():
    """registered(definition, *aliases): registers it, and takes it out again after the test."""
    done = []

    def register(definition, *aliases):
        gpumlp.register(definition, *aliases)
        example = definition() if callable(definition) else definition
        done.append((REGISTRIES[type(example)], example.name.partition("(")[0]))

    yield register
    for registry, name in done:
        registry.remove(name)


@pytest.mark.parametrize("registry", ALL, ids=lambda r: r.kind)
def test_every_name_and_alias_stands_for_its_definition(registry):
    assert set(registry) <= set(registry.names())
    for name in registry.names():
        assert registry.get(name).name.partition("(")[0] in registry
    for name in registry:
        assert registry.get(name).name.partition("(")[0] == name
        for alias in registry.aliases(name):
            assert registry.get(alias).name.partition("(")[0] == name
    assert [d.name.partition("(")[0] for d in registry.definitions()] == list(registry)


@pytest.mark.parametrize("registry", ALL, ids=lambda r: r.kind)
def test_every_definition_says_its_formula_and_its_source(registry):
    for definition in registry.definitions():
        assert definition.formula
        assert definition.source


@pytest.mark.parametrize("registry", ALL, ids=lambda r: r.kind)
def test_the_name_of_a_definition_stands_for_it_again(registry):
    """What a file or a message holds is enough to find the definition."""
    for definition in registry.definitions():
        assert registry.get(definition.name).name == definition.name
        assert registry.get(definition) is definition


@pytest.mark.parametrize("name", ["leaky_relu(0.2)", "leaky_relu(slope=0.2)", " leaky_relu ( slope = 0.2 ) "])
def test_a_name_may_carry_its_parameter(name):
    f = ACTIVATIONS.get(name)
    assert f.name == "leaky_relu(slope=0.2)"
    assert f.value(np.array([-1.0, 2.0])).tolist() == [-0.2, 2.0]


def test_parameters_reach_costs_and_rules():
    assert COSTS.get("huber(width=2)").term(np.array(5.0), 0.0) == 2 * (5 - 1)
    assert COSTS.get("exponential(2)").outer(2.0) == 2 * np.exp(1.0)
    assert COSTS.get("categorical_cross_entropy(label_smoothing=0.1)").label_smoothing == 0.1
    assert RULES.get("momentum(0.5)").defaults == {"momentum": 0.5}
    assert RULES.get("adam(beta1=0.8)").defaults["beta1"] == 0.8


@pytest.mark.parametrize(
    ("registry", "given", "near"),
    [(ACTIVATIONS, "rleu", "relu"), (COSTS, "quadratc", "quadratic"), (RULES, "adm", "adam")],
)
def test_an_unknown_name_gives_the_nearest(registry, given, near):
    with pytest.raises(UnknownName, match=f"unknown {registry.kind} '{given}'; did you mean '{near}'"):
        registry.get(given)


def test_a_name_like_no_other_gives_all_that_are_known():
    with pytest.raises(UnknownName, match=r"known are adagrad, adam,.*sgd"):
        RULES.get("xyzzy")


@pytest.mark.parametrize(
    "given",
    ["leaky_relu(", "leaky_relu(slop=0.2)", "leaky_relu(slope=x)", "leaky_relu(1, 2)", "leaky_relu(__import__('os'))",
     "leaky_relu(slope='a')", "sigmoid(3)", "relu) + (relu", "", "leaky_relu(**{})"],
)  # fmt: skip
def test_parameters_that_cannot_be_read_raise(given):
    with pytest.raises(ConfigurationError):
        ACTIVATIONS.get(given)


@pytest.mark.parametrize("given", [3, None, 0.5, np.tanh])
def test_what_is_neither_name_nor_definition_raises(given):
    with pytest.raises(ConfigurationError, match="neither a name nor a definition"):
        ACTIVATIONS.get(given)


def test_a_definition_of_another_kind_is_refused():
    with pytest.raises(ConfigurationError):
        gpumlp.Network((2, 2), output=COSTS.get("quadratic"), cost="quadratic")


# ---------------------------------------------------------------- a user's own


def xor_like():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((40, 3))
    return X, (X[:, :1] * X[:, 1:2] > 0).astype(float)


def trained(net, optimizer="adam", epochs=30, learning_rate=0.05):
    X, Y = xor_like()
    cost = gpumlp.Trainer(net, optimizer, learning_rate=learning_rate, batch_size=8).fit(X, Y, epochs)["cost"][:, 0]
    assert cost[-1] < 0.9 * cost[0]
    return cost


def test_a_users_activation_trains_by_its_name(registered):
    registered(gpumlp.Activation("bent", lambda z: z + 0.5 * absolute(z)), "bent_line")
    net = gpumlp.Network((3, 6, 1), activation="bent_line", output="sigmoid", cost="cross_entropy", dtype="float64")
    assert net.architecture.activations[0].name == "bent"
    by_hand = gpumlp.Network((3, 6, 1), "leaky_relu(0.3333333333333333)", "sigmoid", "cross_entropy", dtype="float64")
    by_hand.set_weights(0, 1.5 * net.weights[0])
    X, _ = xor_like()
    assert np.allclose(net.predict(X), by_hand.predict(X))
    trained(net)


def test_a_users_function_of_parameters_is_registered_whole(registered):
    def scaled_tanh(scale=1.7):
        return gpumlp.Activation(f"scaled_tanh(scale={scale})", lambda z: scale * np.tanh(z))

    registered(scaled_tanh)
    assert ACTIVATIONS.get("scaled_tanh(0.5)").value(np.array(100.0)) == 0.5
    trained(gpumlp.Network((3, 6, 1), activation="scaled_tanh", output="sigmoid", cost="cross_entropy"))


def test_a_users_cost_trains_by_its_name_with_a_derived_gradient(registered):
    registered(gpumlp.Cost("fourth_power", term=lambda a, y: (a - y) ** 2 * (a - y) ** 2))
    trained(gpumlp.Network((3, 6, 1), activation="tanh", output="sigmoid", cost="fourth_power"), learning_rate=0.1)


def test_a_users_rule_trains_by_its_name(registered):
    registered(
        gpumlp.UpdateRule(
            "root_sgd",
            lambda w, g, s, h: (w - h.eta * sign(g) * power(absolute(g), h.exponent),),
            defaults={"exponent": 0.7},
        )
    )
    trained(gpumlp.Network((3, 6, 1), "tanh", "sigmoid", "cross_entropy"), optimizer="root_sgd")


def test_a_users_rule_may_remember_the_old_weight():
    """Heavy ball, written with the last weight instead of a velocity, is momentum."""
    heavy_ball = gpumlp.UpdateRule(
        "heavy_ball", lambda w, g, s, h: (w - h.eta * g + h.mu * (w - s.last), w), state=("last",), defaults={"mu": 0.9}
    )
    X, Y = xor_like()
    nets = [gpumlp.Network((3, 4, 1), "tanh", "identity", "quadratic", dtype="float64") for _ in range(2)]
    theta = nets[0].parameters.theta.copy()
    options = {"learning_rate": 0.01, "batch_size": "full"}
    gpumlp.Trainer(nets[0], heavy_ball, state={"last": theta}, **options).fit(X, Y, 5)
    gpumlp.Trainer(nets[1], "momentum", **options).fit(X, Y, 5)
    assert np.allclose(nets[0].parameters.theta, nets[1].parameters.theta, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["power", "sign", "select", "r0", "f0", "s7", "t0"])
def test_a_users_rule_may_name_its_numbers_as_it_likes(name):
    rule = gpumlp.UpdateRule(
        "named", lambda w, g, s, h: (w - h.eta * sign(g) * power(absolute(g), getattr(h, name)),), defaults={name: 0.5}
    )
    net = gpumlp.Network((3, 1), output="identity", cost="quadratic")
    gpumlp.Trainer(net, rule).fit(*xor_like(), 1)
    assert np.isfinite(net.weights[0]).all()


@pytest.mark.parametrize(
    "parts",
    [
        {"defaults": {"l2": 0.1}},
        {"defaults": {"eta": 0.1}},
        {"defaults": {"not-a-name": 0.1}},
        {"state": ("g",)},
        {"state": ("n",), "defaults": {"n": 0.1}},
        {"state": ("m", "v")},
    ],
    ids=["l2", "eta", "not-a-name", "g", "n twice", "results missing"],
)
def test_a_users_rule_that_cannot_be_performed_is_refused_with_the_reason(parts):
    """Names of the training loop's own or of two things at once, and fewer results than there is state."""
    rule = gpumlp.UpdateRule("odd", lambda w, g, s, h: (w - h.eta * g,), **parts)
    with pytest.raises(GpumlpError, match="odd"):
        gpumlp.Trainer(gpumlp.Network((3, 1), (), "identity", "quadratic"), rule).fit(*xor_like(), 1)


@pytest.mark.parametrize("name", ["relu", "linear", "swish", "leaky_relu"])
def test_a_name_that_is_taken_is_refused(name):
    before = ACTIVATIONS.names()
    with pytest.raises(ConfigurationError, match="registered already"):
        gpumlp.register(gpumlp.Activation(name, lambda z: z))
    with pytest.raises(ConfigurationError, match="registered already"):
        gpumlp.register(gpumlp.Activation("brand_new", lambda z: z), name)
    assert ACTIVATIONS.names() == before


@pytest.mark.parametrize("name", ["soft-step", "two words", "", "2(", "a.b"])
def test_a_name_that_could_never_be_found_again_is_refused(name):
    known = list(ACTIVATIONS)
    try:
        with pytest.raises(ConfigurationError):
            gpumlp.register(gpumlp.Activation(name, lambda z: z))
    finally:
        for left in set(ACTIVATIONS) - set(known):
            ACTIVATIONS.remove(left)


@pytest.mark.parametrize("thing", [3, "relu", lambda: 3, np.ones(3)])
def test_what_is_no_definition_cannot_be_registered(thing):
    with pytest.raises(ConfigurationError, match="cannot register"):
        gpumlp.register(thing)


def test_what_was_removed_is_unknown_again(registered):
    gpumlp.register(gpumlp.Cost("short_lived", term=lambda a, y: a * y), "mayfly")
    COSTS.remove("short_lived")
    for name in ("short_lived", "mayfly"):
        with pytest.raises(UnknownName):
            COSTS.get(name)


def test_a_formula_that_cannot_be_recorded_raises_before_training():
    broken = gpumlp.Activation("broken", lambda z: z if z > 0 else 0)
    with pytest.raises(GpumlpError, match="where"):
        gpumlp.Network((2, 2, 2), activation=broken).predict(np.ones((1, 2)))
    assert record(lambda z: z, "z").reads("z")
    with pytest.raises(GpumlpError):
        prime_recording(broken)


@pytest.mark.parametrize(
    "name",
    [
        "categorical_cross_entropy(2)",
        "huber(-1)",
        "huber(0)",
        "exponential(0)",
        "exponential(-1)",
        "categorical_cross_entropy(-0.1)",
    ],
)
def test_a_parameter_that_means_nothing_is_refused(name):
    with pytest.raises(ConfigurationError):
        COSTS.get(name)


# ---------------------------------------------------------------- intervals


def test_an_interval_lies_in_another_up_to_its_ends():
    open_unit, unit = Interval(0, 1), Interval(0, 1, True, True)
    assert open_unit in unit
    assert unit not in open_unit
    assert unit in Interval()
    assert Interval(-1, 1) not in unit
    assert unit.holds(0, 1)
    assert not open_unit.holds(0, 0.5)
    assert not unit.holds(-0.1, 0.5)
    assert (str(unit), str(open_unit), str(Interval())) == ("[0, 1]", "(0, 1)", "(-inf, inf)")


def test_an_own_definition_may_be_replaced_a_shipped_one_never():
    gpumlp.register(gpumlp.Activation("again", lambda z: z))
    try:
        gpumlp.register(gpumlp.Activation("again", lambda z: 2 * z), replace=True)
        assert ACTIVATIONS.get("again").value(3) == 6
        with pytest.raises(ConfigurationError, match="registered already"):
            gpumlp.register(gpumlp.Activation("relu", lambda z: z), replace=True)
    finally:
        ACTIVATIONS.remove("again")


@pytest.mark.parametrize("value", [lambda z: math.exp(z), lambda z: z.clip(0), lambda z: "z"])
def test_a_formula_that_cannot_be_recorded_is_refused_where_it_enters(value):
    bad = gpumlp.Activation("bad", value)
    with pytest.raises(gpumlp.errors.FormulaError):
        gpumlp.register(bad)
    with pytest.raises(gpumlp.errors.FormulaError):
        gpumlp.Network((2, 3, 2), activation=bad)
    assert "bad" not in ACTIVATIONS


@pytest.mark.parametrize("thing", [lambda z: z, gpumlp.Activation])
def test_a_bare_function_or_class_cannot_be_registered(thing):
    with pytest.raises(ConfigurationError, match="cannot register"):
        gpumlp.register(thing)


def test_one_name_gives_one_definition():
    assert ACTIVATIONS.get("leaky_relu(0.2)") is ACTIVATIONS.get("leaky_relu(0.2)")
    assert COSTS.get("huber(width=2)") is COSTS.get("huber(width=2)")


def test_an_activation_that_only_has_the_name_of_the_matched_one_is_another():
    own = gpumlp.Activation("sigmoid", lambda z: 0.5 + 0.25 * z / (1 + absolute(z)), range=Interval(0.0, 1.0))
    net = gpumlp.Network((3, 2, 1), "tanh", own, "cross_entropy", dtype="float64")
    X, Y = np.random.default_rng(0).standard_normal((4, 3)), np.array([0.0, 1.0, 1.0, 0.0])
    exact, step = net.backpropagate(X, Y).dW[1][0, 0, 0], 1e-6
    costs = []
    for sign_of_step in (1, -1):
        net.weights[1][0, 0, 0] += sign_of_step * step
        costs.append(net.cost_of(X, Y).item())
        net.weights[1][0, 0, 0] -= sign_of_step * step
    assert np.isclose((costs[0] - costs[1]) / (2 * step), exact, rtol=1e-6)
