import io
import pickle

import joblib
import numpy as np
import pytest
from exchanged_models import DTYPES, allowance, by_quantiles, classifier, network, regression, rows
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.utils.validation import check_is_fitted

import gpumlp
from gpumlp.convert import from_sklearn, one_of, to_sklearn
from gpumlp.errors import ConfigurationError

SHARED = ["identity", "sigmoid", "tanh", "relu"]
pytestmark = pytest.mark.filterwarnings("ignore:X does not have valid feature names:UserWarning")


def regressors():
    """Return the output activations of an MLPRegressor of the installed version."""
    return ["identity", "exp"] if "loss" in MLPRegressor().get_params() else ["identity"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("activation", SHARED)
@pytest.mark.parametrize(("n_classes", "output"), [(3, "softmax"), (2, "softmax"), (2, "sigmoid")])
def test_a_classifier_answers_the_same_in_scikit_learn(n_classes, output, activation, scaled, dtype):
    model = classifier(n_classes, output, scaled, activation=activation, dtype=dtype)
    X, fitted = rows(model), to_sklearn(model)
    assert type(fitted) is MLPClassifier
    assert np.abs(fitted.predict_proba(X) - model.probabilities(X)).max() <= allowance(model, 1)
    assert fitted.predict(X).tolist() == model.predict(X).tolist()
    assert fitted.score(X, model.predict(X)) == 1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("activation", SHARED)
@pytest.mark.parametrize("output", regressors())
@pytest.mark.parametrize("n_out", [1, 2])
def test_a_regression_answers_the_same_in_scikit_learn(n_out, output, activation, scaled, dtype):
    model = regression(n_out, output, scaled, activation=activation, dtype=dtype)
    X, fitted = rows(model), to_sklearn(model)
    assert type(fitted) is MLPRegressor
    found = model.predict(X)
    assert fitted.predict(X).shape == found.shape
    assert np.abs(fitted.predict(X) - found).max() <= allowance(model, found)


def test_a_mean_far_from_zero_loses_nothing_in_folded_weights():
    X = (1e4 + np.random.default_rng(0).standard_normal((9, 3))).astype(np.float32)
    model = classifier()
    model.scaler = gpumlp.data.Standardiser.fit(X)
    assert np.abs(to_sklearn(model).predict_proba(X) - model.probabilities(X)).max() <= 1e-6


@pytest.mark.parametrize("model", [classifier(), classifier(2), classifier(2, "sigmoid"), regression()])
def test_a_model_keeps_its_answers_there_and_back(model):
    X, back = rows(model), from_sklearn(to_sklearn(model))
    found = model.predict(X)
    if model.task == "classification":
        assert np.abs(back.probabilities(X) - model.probabilities(X)).max() <= 1e-6
        assert back.predict(X).tolist() == found.tolist()
    else:
        assert np.abs(back.predict(X) - found).max() <= allowance(model, found)
    assert (back.task, back.feature_names) == (model.task, model.feature_names)


def learned(kind, **options):
    random = np.random.default_rng(0)
    X = random.standard_normal((60, 4))
    y = np.array(["no", "yes", "so"])[np.arange(60) % options.pop("n_classes", 3)]
    if kind is MLPRegressor:
        y = np.abs(X @ [1, 2, 0, 1])
    with pytest.warns(ConvergenceWarning):
        return X, y, kind(hidden_layer_sizes=(6, 5), max_iter=3, random_state=0, **options).fit(X, y)


@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_what_scikit_learn_learned_answers_the_same_here(activation, n_classes):
    X, _, fitted = learned(MLPClassifier, activation=activation, n_classes=n_classes)
    model = from_sklearn(fitted)
    assert model.network.dtype == np.float64
    assert np.abs(model.probabilities(X) - fitted.predict_proba(X)).max() <= 1e-12
    assert model.predict(X).tolist() == fitted.predict(X).tolist()


@pytest.mark.parametrize("options", [{}] + [{"loss": "poisson"}] * (len(regressors()) - 1))
def test_what_scikit_learn_regresses_answers_the_same_here(options):
    X, _, fitted = learned(MLPRegressor, **options)
    assert np.abs(from_sklearn(fitted).predict(X) - fitted.predict(X)).max() <= 1e-12


def test_float32_and_the_names_of_a_data_frame_come_along():
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    table = pandas.DataFrame(np.random.default_rng(0).standard_normal((20, 2)).astype(np.float32), columns=["u", "v"])
    with pytest.warns(ConvergenceWarning):
        fitted = MLPClassifier((3,), max_iter=1).fit(table, np.arange(20) % 3)
    model = from_sklearn(fitted)
    assert model.network.dtype == np.float32
    assert model.feature_names == ("u", "v")
    again = to_sklearn(model)
    assert again.feature_names_in_.tolist() == ["u", "v"]
    assert again.predict(table).tolist() == fitted.predict(table).tolist()


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_it_has_every_public_attribute_of_a_fitted_one_and_of_the_same_kind(kind):
    X, _, fitted = learned(kind)
    made = to_sklearn(from_sklearn(fitted), loss_curve=fitted.loss_curve_)
    check_is_fitted(made)
    public = {name for name in vars(fitted) if name.endswith("_") and not name.startswith("_")}
    assert public <= set(vars(made))
    for name in public - {"t_"}:
        assert isinstance(getattr(fitted, name), type(getattr(made, name))), name
    assert (made.loss_, made.n_iter_, made.best_loss_) == (fitted.loss_, fitted.n_iter_, fitted.best_loss_)
    assert np.array_equal(made.predict(X), fitted.predict(X))


@pytest.mark.parametrize("model", [classifier(), classifier(2), classifier(2, "sigmoid"), regression(1), regression()])
def test_it_goes_on_learning_and_is_cloned_shown_and_pickled(model):
    X, fitted = rows(model), to_sklearn(model)
    found = fitted.predict(X)
    stream = io.BytesIO()
    joblib.dump(fitted, stream)
    stream.seek(0)
    for copy in (pickle.loads(pickle.dumps(fitted)), joblib.load(stream)):
        assert np.array_equal(copy.predict(X), found)
        copy.partial_fit(X, model.predict(X))
        assert len(copy.loss_curve_) == 1
        assert np.isfinite(copy.loss_)
        assert not np.array_equal(copy.coefs_[0], fitted.coefs_[0])
    assert "hidden_layer_sizes=(5, 4)" in repr(fitted)
    assert clone(fitted).get_params() == fitted.get_params()


def test_learning_again_with_early_stopping_begins_anew():
    model = classifier()
    fitted = to_sklearn(model).set_params(early_stopping=True, max_iter=2, warm_start=False)
    with pytest.warns(ConvergenceWarning):
        fitted.fit(rows(model), np.arange(23) % 3)
    assert fitted.n_iter_ == 2


def test_a_network_without_hidden_layers_goes_and_comes():
    net = network((3, 3), "softmax", activation=[])
    X = np.random.default_rng(0).standard_normal((5, 3))
    fitted = to_sklearn(net)
    assert fitted.hidden_layer_sizes == ()
    assert np.allclose(fitted.predict_proba(X), net.predict(X)[0], atol=1e-6)
    assert from_sklearn(fitted).network.sizes == (3, 3)


def test_a_network_alone_numbers_its_classes():
    fitted = to_sklearn(network((3, 4, 3), "softmax"))
    assert fitted.classes_.tolist() == [0, 1, 2]
    assert type(to_sklearn(network((3, 4, 2), "identity"))) is MLPRegressor


def test_one_of_a_stack_is_that_model():
    model = classifier(n_models=3, scaled=False)
    X = rows(model)
    for number in range(3):
        alone = one_of(model, number)
        assert np.array_equal(alone.network.predict(X)[0], model.network.predict(X)[number])
        assert alone.network.model_ids == (number,)
        assert np.allclose(to_sklearn(alone).predict_proba(X), model.network.predict(X)[number], atol=1e-6)
    with pytest.raises(ConfigurationError, match="model 3 does not exist; the stack has 0 to 2"):
        one_of(model, 3)


def wave(**options):
    return gpumlp.Activation("wave", value=lambda z: z * z, **options)


REFUSED = {
    "a stack": (classifier(n_models=2), r"stack of 2; take one.*one_of\(model, 0\)"),
    "another activation": (classifier(activation="gelu"), "no activation gelu, only identity, sigmoid"),
    "an own activation": (classifier(activation=wave()), "no activation wave"),
    "one that only has the name": (classifier(activation=gpumlp.Activation("tanh", lambda z: z)), "no activation tanh"),
    "one for each layer": (regression(activation=["relu", "tanh"]), "has one activation.*relu, tanh"),
    "another output": (regression(output="softplus"), "this model has softplus"),
    "a classifier without probabilities": (classifier(output="identity"), "3 x identity"),
    "several sigmoids": (classifier(output="sigmoid"), "3 x sigmoid"),
    "a sigmoid that is split at 0": (classifier(2, "sigmoid", cost="hinge"), "at an output of 1/2.*cost hinge.*, at 0"),
    "classes in disorder": (
        gpumlp.SavedModel(network((3, 3), "softmax", []), "classification", np.array([2, 1, 3])),
        r"sorted classes.*\[2, 1, 3\]",
    ),
    "classes that are fractions": (
        gpumlp.SavedModel(network((3, 3), "softmax", []), "classification", np.array([0.5, 1.5, 3])),
        "text or whole numbers",
    ),
    "something else": ("m.npz", "neither a gpumlp.SavedModel nor a gpumlp.Network"),
}


@pytest.mark.parametrize(("model", "message"), REFUSED.values(), ids=list(REFUSED))
def test_what_scikit_learn_cannot_express_is_refused_with_what_to_do(model, message):
    with pytest.raises(ConfigurationError, match=message):
        to_sklearn(model)


def test_scaled_targets_behind_an_output_activation_are_refused():
    model = regression(output="exp", scaled=False)
    model.target_scaler = regression().target_scaler
    with pytest.raises(ConfigurationError, match="scaled targets behind the output activation exp"):
        to_sklearn(model)


def test_other_objects_of_scikit_learn_are_refused():
    with pytest.raises(ConfigurationError, match="is not fitted"):
        from_sklearn(MLPClassifier())
    with pytest.raises(ConfigurationError, match="is no MLPClassifier"):
        from_sklearn(object())
    X = np.random.default_rng(0).standard_normal((20, 2))
    with pytest.warns(ConvergenceWarning):
        several = MLPClassifier((3,), max_iter=1).fit(X, (X > 0).astype(int))
    with pytest.raises(ConfigurationError, match="several labels to a row"):
        from_sklearn(several)


def test_a_scaling_by_quantiles_cannot_become_part_of_the_weights():
    with pytest.raises(ConfigurationError, match="no place for features scaled by quantile"):
        to_sklearn(by_quantiles(classifier()))
