import sys

import numpy as np
import pytest
from exchanged_models import DTYPES, HIDDEN, OUTPUTS, SCALER, X, allowance, classifier, network, regression, rows

import gpumlp
from gpumlp.convert import from_torch, to_torch
from gpumlp.convert.pytorch import MODULES
from gpumlp.errors import BackendUnavailable, ConfigurationError

TORCH_HAS = {*MODULES, "identity"}
SHARED = [a for a in HIDDEN if a.name.partition("(")[0] in TORCH_HAS]


def test_every_activation_of_torch_is_a_registered_one_and_only_exp_is_missing():
    names = {a.name.partition("(")[0] for a in OUTPUTS}
    assert names - TORCH_HAS == {"exp"}
    assert names >= TORCH_HAS


def test_without_torch_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    for call in (lambda: to_torch(classifier()), lambda: from_torch(None)):
        with pytest.raises(BackendUnavailable, match="pip install torch"):
            call()


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="PyTorch is not installed, with which models would be exchanged")


def answers(torch, sequential, X):
    with torch.no_grad():
        return sequential(torch.from_numpy(X)).numpy()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("activation", SHARED, ids=lambda a: a.name)
def test_every_activation_gives_the_same_there_and_comes_back(activation, scaled, dtype, torch):
    model = regression(scaled=scaled, activation=activation, dtype=dtype)
    sequential, found = to_torch(model), model.predict(rows(model))
    given = answers(torch, sequential, rows(model))
    assert given.dtype == dtype
    assert np.abs(given - found).max() <= 20 * allowance(model, found)  # scalers in the weights round once more
    back = from_torch(sequential)
    assert [a.name for a in back.architecture.activations] == [activation.name] * 2 + ["identity"]
    assert back.dtype == dtype
    assert np.abs(back.predict(rows(model))[0] - given).max() <= 20 * allowance(model, found)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("output", [a for a in OUTPUTS if a.name.partition("(")[0] in TORCH_HAS], ids=lambda a: a.name)
def test_every_output_gives_the_same_there_and_comes_back(output, dtype, torch):
    net = network((3, 5, 2), output, dtype=dtype)
    inputs = SCALER.transform(X, dtype)
    sequential = to_torch(net)
    assert np.abs(answers(torch, sequential, inputs) - net.predict(inputs)[0]).max() <= (
        1e-6 if dtype == "float32" else 1e-12
    )
    back = from_torch(sequential, cost=net.architecture.cost.name)
    assert np.array_equal(back.weights[0], net.weights[0])
    assert [a.name for a in back.architecture.activations] == [a.name for a in net.architecture.activations]


@pytest.mark.parametrize("activation", ["leaky_relu(slope=0.25)", "elu(alpha=0.5)"])
def test_parameters_of_an_activation_come_along(activation, torch):
    net = network((3, 5, 2), "identity", activation=activation)
    back = from_torch(to_torch(net))
    assert back.architecture.activations[0].name == activation
    assert np.array_equal(back.predict(X), net.predict(X))


def test_softplus_of_large_numbers_is_not_cut_short(torch):
    net = gpumlp.Network((1, 1), output="softplus", cost="quadratic", dtype="float64")
    net.set_weights(0, [[1.0]], [0.0])
    z = np.linspace(15.0, 45.0, 31)[:, None]
    np.testing.assert_allclose(answers(torch, to_torch(net), z), net.predict(z)[0], rtol=1e-15, atol=0)


def test_a_classifier_gives_its_probabilities_and_its_logits_without_the_last_module(torch):
    model = classifier()
    sequential = to_torch(model)
    given = answers(torch, sequential, rows(model))
    assert np.abs(given - model.probabilities(rows(model))).max() <= 2e-5
    logits = answers(torch, sequential[:-1], rows(model))
    assert np.allclose(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), given, atol=1e-6)


def test_dropout_stands_behind_its_activation_and_is_off(torch):
    sequential = to_torch(network((3, 5, 4, 2), "softmax", dropout=[0.0, 0.25]))
    assert [type(module).__name__ for module in sequential] == [
        "Linear",
        "Tanh",
        "Linear",
        "Tanh",
        "Dropout",
        "Linear",
        "Softmax",
    ]
    assert sequential[4].p == 0.25
    assert not sequential.training
    assert from_torch(sequential).dropout == (0.0, 0.25)


def test_what_torch_trains_goes_on_training_here(torch):
    torch.manual_seed(0)
    nn = torch.nn
    sequential = nn.Sequential(nn.Linear(4, 6, bias=False), nn.ReLU(), nn.Dropout(0.1), nn.Linear(6, 3)).eval()
    iris = gpumlp.data.load_builtin("iris")
    labels, _ = gpumlp.data.encode_labels(iris.y)
    net = from_torch(sequential, output="softmax", backend="numpy")
    logits = torch.from_numpy(iris.X.astype(np.float32))
    with torch.no_grad():
        wanted = torch.softmax(sequential(logits), dim=1).numpy()
    assert np.abs(net.predict(iris.X)[0] - wanted).max() <= 1e-6
    assert (net.architecture.cost.name, net.dropout) == ("categorical_cross_entropy", (0.1,))
    gpumlp.Trainer(net, learning_rate=0.02).fit(iris.X, labels, epochs=40)
    assert net.evaluate(iris.X, labels)["accuracy"][0] > 0.8
    assert np.allclose(answers(torch, to_torch(net), iris.X.astype(np.float32)), net.predict(iris.X)[0], atol=1e-6)


def test_weights_are_copied(torch):
    net = network((3, 2), "identity", activation=[])
    sequential = to_torch(net)
    before = net.predict(X)
    with torch.no_grad():
        sequential[0].weight.zero_()
    assert np.array_equal(net.predict(X), before)
    back = from_torch(sequential)
    back.set_weights(0, np.ones((2, 3)))
    assert not sequential[0].weight.any()


REFUSED = {
    "a stack": (classifier(n_models=2), r"stack of 2.*one_of\(model, 0\)"),
    "exp": (regression(output="exp", scaled=False), "no module for activation exp, only for identity, sigmoid"),
    "an own activation": (
        regression(activation=gpumlp.Activation("wave", lambda z: z * z)),
        "no module for activation wave",
    ),
    "one that only has the name": (
        regression(activation=gpumlp.Activation("tanh", lambda z: z * z)),
        "no module for activation tanh",
    ),
}


@pytest.mark.parametrize(("model", "message"), REFUSED.values(), ids=list(REFUSED))
def test_what_torch_cannot_express_is_refused(model, message, torch):
    with pytest.raises(ConfigurationError, match=message):
        to_torch(model)


STRANGE = {
    "group norm": (lambda nn: [nn.Linear(3, 4), nn.GroupNorm(2, 4)], r"module 1, GroupNorm.*is not understood"),
    "the exact gelu": (lambda nn: [nn.Linear(3, 4), nn.GELU()], "module 1, GELU.*tanh form"),
    "another softplus": (lambda nn: [nn.Linear(3, 4), nn.Softplus(beta=2)], "module 1, Softplus"),
    "another hard tanh": (lambda nn: [nn.Linear(3, 4), nn.Hardtanh(0, 1)], "module 1, Hardtanh"),
    "softmax over rows": (lambda nn: [nn.Linear(3, 4), nn.Softmax(dim=0)], "module 1, Softmax"),
    "two activations": (lambda nn: [nn.Linear(3, 4), nn.ReLU(), nn.Tanh()], r"module 2, Tanh\(\), stands where"),
    "an activation first": (lambda nn: [nn.ReLU(), nn.Linear(3, 4)], "module 0, ReLU.*stands where"),
    "dropout first": (lambda nn: [nn.Dropout(0.5), nn.Linear(3, 4)], "module 0, Dropout.*stands where"),
    "dropout before": (lambda nn: [nn.Linear(3, 4), nn.Dropout(0.5), nn.ReLU()], "module 2, ReLU.*stands where"),
    "dropout last": (lambda nn: [nn.Linear(3, 4), nn.Dropout(0.5)], "behind the output"),
    "no layer": (lambda nn: [], "has no nn.Linear"),
    "half precision": (lambda nn: [nn.Linear(3, 4).half()], "torch.float16, expected float32 or float64"),
}


@pytest.mark.parametrize(("modules", "message"), STRANGE.values(), ids=list(STRANGE))
def test_modules_that_are_not_understood_are_named(modules, message, torch):
    with pytest.raises(ConfigurationError, match=message):
        from_torch(torch.nn.Sequential(*modules(torch.nn)))


def test_other_modules_and_a_second_output_are_refused(torch):
    nn = torch.nn
    with pytest.raises(ConfigurationError, match=r"Linear is no torch\.nn\.Sequential"):
        from_torch(nn.Linear(3, 4))
    with pytest.raises(ConfigurationError, match="the last module is sigmoid already"):
        from_torch(nn.Sequential(nn.Linear(3, 4), nn.Sigmoid()), output="softmax")
