"""What the estimators can do that scikit-learn's cannot."""

import inspect
import re

import numpy as np
import pandas as pd
import pytest
from fitted import checks_of, fit, flowers, patients, same_bits
from scipy import sparse
from sklearn.metrics import log_loss
from sklearn.utils.class_weight import compute_sample_weight

import gpumlp
from gpumlp import MLPClassifier, MLPRegressor
from gpumlp.errors import ConfigurationError
from gpumlp.estimators.parameters import InvalidParameterError
from gpumlp.formulas.costs import COSTS
from gpumlp.formulas.update_rules import RULES

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def small(kind=MLPClassifier, **params):
    defaults = {"hidden_layer_sizes": (9,), "random_state": 1, "max_iter": 40, "learning_rate_init": 0.02}
    return kind(**defaults | params)


@pytest.mark.parametrize(
    ("estimator", "check"),
    checks_of(
        MLPClassifier(max_iter=100, label_smoothing=0.05, clip_norm=1.0),
        MLPClassifier(solver="lbfgs", max_iter=60, missing="indicator"),
        MLPRegressor(max_iter=60, missing="indicator", optimizer="adamw"),
    ),
)
def test_every_check_of_scikit_learn_holds_with_them(estimator, check):
    check(estimator)


def test_each_hidden_layer_has_an_activation_of_its_own():
    X, y = flowers()
    wave = gpumlp.Activation("wave", value=lambda z: z / (1 + z * z))
    for several in (["tanh", "relu"], ("gelu", wave)):
        assert small(hidden_layer_sizes=(9, 7), activation=several).fit(X, y).score(X, y) > 0.9
    with pytest.raises(ValueError, match="activation names 2 layers, hidden_layer_sizes 1"):
        small(activation=["tanh", "relu"]).fit(X, y)


@pytest.mark.parametrize("rule", list(RULES))
def test_every_update_rule_takes_the_place_of_the_solver(rule):
    X, y = flowers()
    mlp = small(optimizer=rule, solver="lbfgs", learning_rate_init=0.05 if "sgd" in rule else 0.01, batch_size=16)
    assert mlp.fit(X, y).score(X, y) > 0.85
    parts = mlp.set_params(n_iter_no_change=100, max_iter=3)
    whole = [np.array(W) for W in fit(parts, X, y).coefs_]
    again = small(optimizer=rule, learning_rate_init=mlp.learning_rate_init, batch_size=16)
    for _ in range(3):
        again.partial_fit(X, y, classes=[0, 1, 2])
    assert all(np.array_equal(a, b) for a, b in zip(whole, again.coefs_, strict=True))


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("cost", [cost for cost in COSTS if cost not in ("itakura_saito", "kullback_leibler")])
def test_every_cost_that_labels_can_have_trains_a_classifier(cost, classes):
    X, y = flowers()
    y = np.minimum(y, classes - 1)
    if classes == 2 and cost == "categorical_cross_entropy":
        pytest.skip("it is of several classes")
    assert small(cost=cost, max_iter=100, clip_norm=1.0).fit(X, y).score(X, y) > 0.8


def test_outputs_that_are_no_probabilities_are_not_given_as_such():
    X, y = flowers()
    mlp = small(cost="hinge").fit(X, y)
    assert mlp.out_activation_ == "identity"
    with pytest.raises(ConfigurationError, match="no probabilities"):
        mlp.predict_proba(X)
    shares = small(cost="quadratic").fit(X, y).predict_proba(X)
    np.testing.assert_allclose(shares.sum(axis=1), 1)


def test_a_cost_that_fits_no_output_is_refused():
    X, y = flowers()
    with pytest.raises(ValueError, match="categorical_cross_entropy fits none of logistic, identity"):
        small(cost="categorical_cross_entropy").fit(X, y == 1)
    with pytest.raises(ValueError, match=r"itakura_saito is defined for targets in \(0, inf\), but labels stand for 0"):
        small(cost="itakura_saito").fit(X, y)
    with pytest.raises(ValueError, match="label_smoothing is that of the cross-entropies"):
        small(cost="hinge", label_smoothing=0.1).fit(X, y)


def test_a_robust_cost_of_a_regressor_is_less_moved_by_an_outlier():
    X, y = patients()
    spoilt = y.copy()
    spoilt[:3] += 100
    errors = [
        np.abs(fit(small(MLPRegressor, cost=cost, max_iter=150), X, spoilt).predict(X)[3:] - y[3:]).mean()
        for cost in (None, "huber")
    ]
    assert errors[1] < 0.7 * errors[0]


def test_dropout_leaves_predictions_certain_and_changes_training():
    X, y = flowers()
    plain, dropped = small().fit(X, y), small(dropout=[0.3]).fit(X, y)
    assert not same_bits(plain, dropped)
    np.testing.assert_array_equal(dropped.predict_proba(X), dropped.predict_proba(X))
    assert dropped.score(X, y) > 0.9


def test_a_schedule_takes_the_place_of_the_learning_rates_kind():
    X, y = flowers()
    stepped = small(schedule="step(every=1, factor=0.0)", alpha=0.0, max_iter=5).fit(X, y)
    assert same_bits(stepped, small(alpha=0.0, max_iter=1).fit(X, y))


@pytest.mark.parametrize("weights", ["balanced", {0: 1.0, 1: 3.0, 2: 0.5}])
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_weights_of_classes_are_weights_of_rows(weights, solver):
    X, y = flowers(slice(0, 120))
    own = compute_sample_weight(weights, y)
    rows = np.linspace(0.5, 1.5, len(y))
    given = small(solver=solver).fit(X, y, own * rows)
    assert same_bits(small(solver=solver, class_weight=weights).fit(X, y, rows), given)


def test_balanced_weights_are_no_matter_of_parts():
    X, y = flowers()
    with pytest.raises(ValueError, match="'balanced' is not supported for partial_fit"):
        small(class_weight="balanced").partial_fit(X, y, classes=[0, 1, 2])


@pytest.mark.parametrize("classes", [2, 3])
def test_smoothed_labels_make_less_certain_predictions(classes):
    X, y = flowers()
    y = np.minimum(y, classes - 1)
    sharp, smooth = (small(label_smoothing=s, max_iter=100).fit(X, y).predict_proba(X).max() for s in (0.0, 0.3))
    assert smooth < 0.95 < sharp


def test_rows_to_hold_out_can_be_given():
    X, y = flowers()
    train, held = np.arange(0, 150, 2), np.arange(1, 150, 2)
    mlp = small(early_stopping=True).fit(X[train], y[train], X_val=X[held], y_val=y[held])
    assert mlp.t_ == 75 * mlp.n_iter_
    assert mlp.best_validation_score_ == pytest.approx(mlp.score(X[held], y[held]))
    for wrong, message in (
        ({"X_val": X, "y_val": None}, "X_val came without y_val"),
        ({"X_val": X, "y_val": y + 1}, "classes not in `self.classes_`"),
        ({"X_val": X[:, :2], "y_val": y}, "X has 2 features"),
    ):
        with pytest.raises(ValueError, match=message):
            small(early_stopping=True).fit(X, y, **wrong)
    with pytest.raises(ValueError, match="X_val is of no use without early_stopping"):
        small().fit(X, y, X_val=X, y_val=y)


@pytest.mark.parametrize("scoring", ["neg_log_loss", "roc_auc_ovr", lambda e, X, y: -float((e.predict(X) != y).sum())])
def test_any_scorer_decides_when_to_stop(scoring):
    X, y = flowers()
    mlp = small(early_stopping=True, validation_fraction=0.3, scoring=scoring, max_iter=30)
    mlp.fit(pd.DataFrame(X, columns=list("abcd")), y)
    assert mlp.best_validation_score_ == max(mlp.validation_scores_)
    assert len(mlp.validation_scores_) == mlp.n_iter_


def test_a_scorer_of_what_the_estimator_scores_itself_changes_nothing():
    X, y = flowers()
    one, other = (small(early_stopping=True, scoring=s).fit(X, y) for s in (None, "accuracy"))
    assert same_bits(one, other)
    assert one.validation_scores_ == other.validation_scores_


def test_monitors_watch_and_may_stop_it():
    X, y = flowers()

    class ThreeEpochs(gpumlp.Monitor):
        seen = ()

        def epoch_ended(self, report):
            self.seen = (*self.seen, "validation_cost" in report.values)
            return gpumlp.Stop("enough") if report.epoch == 3 else None

    for held_out in (False, True):
        monitor = ThreeEpochs()
        mlp = small(monitors=[monitor], early_stopping=held_out).fit(X, y)
        assert (mlp.n_iter_, monitor.seen) == (3, (held_out,) * 3)


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_an_ensemble_predicts_the_mean_of_models_that_differ(solver):
    X, y = patients()
    mlp = small(MLPRegressor, solver=solver, n_models=3).fit(X, y)
    assert mlp.coefs_[0].shape == (3, 10, 9)
    single = small(MLPRegressor).fit(X, y)
    parts = []
    for m in range(3):
        single.coefs_, single.intercepts_ = [W[m] for W in mlp.coefs_], [b[m] for b in mlp.intercepts_]
        parts.append(single.predict(X))
    np.testing.assert_allclose(mlp.predict(X), np.mean(parts, axis=0), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(mlp.predict_std(X), np.std(parts, axis=0), rtol=1e-6, atol=1e-12)
    assert (mlp.predict_std(X) > 0).all()
    assert not hasattr(single, "predict_std")


def test_an_ensemble_goes_on_in_parts_as_in_one_fit(backend, monkeypatch):
    monkeypatch.setenv("GPUMLP_BACKEND", backend)
    X, y = flowers()
    whole = small(n_models=3, max_iter=3, batch_size=64).fit(X, y)
    parts = small(n_models=3, batch_size=64)
    for _ in range(3):
        parts.partial_fit(X, y, classes=[0, 1, 2])
    assert same_bits(whole, parts)
    assert whole.score(X, y) > 0.5


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_a_temperature_makes_probabilities_say_how_often_they_are_right(solver, classes):
    generator = np.random.default_rng(0)
    X = generator.standard_normal((400, 4))
    y = np.where(generator.random(400) < 0.3, generator.integers(classes, size=400), (X[:, 0] > 0) * 1)
    new, truth = X[300:], y[300:]
    params = {"solver": solver, "max_iter": 200, "alpha": 0.0, "hidden_layer_sizes": (30,), "validation_fraction": 0.3}
    hot = small(calibration="temperature", **params).fit(X[:300], y[:300])
    losses = [log_loss(truth, hot.predict_proba(new))]
    assert hot.temperature_ > 1.2
    labels = hot.predict(new)
    hot.temperature_ = 1.0
    losses.append(log_loss(truth, hot.predict_proba(new)))
    assert losses[0] < losses[1]
    np.testing.assert_array_equal(labels, hot.predict(new))
    with pytest.raises(ValueError, match="partial_fit does not support calibration"):
        small(calibration="temperature").partial_fit(X, y, classes=[0, 1, 2])


def test_missing_values_are_filled_and_told():
    X, y = patients()
    holes = np.random.default_rng(0).random(X.shape) < 0.1
    holes[:, 5:] = False
    spoilt = np.where(holes, np.nan, X)
    with pytest.raises(ValueError, match="NaN"):
        small(MLPRegressor).fit(spoilt, y)
    mlp = small(MLPRegressor, missing="indicator", solver="lbfgs").fit(spoilt, y)
    assert mlp.coefs_[0].shape[0] == 15
    assert mlp.n_features_in_ == 10
    by_hand = np.hstack([np.where(holes, np.nanmean(spoilt, axis=0), X), holes[:, :5]])
    other = small(MLPRegressor, solver="lbfgs").fit(by_hand, y)
    np.testing.assert_allclose(mlp.predict(spoilt), other.predict(by_hand), rtol=1e-9)
    assert np.isfinite(mlp.predict(np.full((1, 10), np.nan))).all()
    assert mlp.__sklearn_tags__().input_tags.allow_nan
    np.testing.assert_array_equal(mlp.predict(sparse.csr_matrix(spoilt)), mlp.predict(spoilt))


def test_held_out_rows_may_have_missing_values_too():
    X, y = flowers()
    X[::7, 1] = np.nan
    mlp = small(missing="indicator", early_stopping=True, scoring="neg_log_loss", calibration="temperature").fit(X, y)
    assert mlp.score(X, y) > 0.9


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("optimizer", "adamm", "'adadelta|a str among {'adagrad', 'adam'"),
        ("cost", "crossentropy", "a str among {'categorical_cross_entropy'"),
        ("dropout", 1.0, r"a float in the range \[0.0, 1.0\) or a list or tuple of"),
        ("n_models", 0, r"an int in the range \[1, inf\)"),
        ("missing", "drop", "a str among {'error', 'indicator'}"),
        ("scoring", "accurate", "a callable, a str among"),
        ("monitors", [1], "a list or tuple of an instance of 'gpumlp.training.monitors.Monitor'"),
        ("class_weight", "equal", "a str among {'balanced'}"),
        ("calibration", "platt", "a str among {'temperature'} or None"),
        ("backend", "gpu", "a str among {'auto', 'numpy', 'numba', 'cuda'}"),
    ],
)
def test_a_wrong_value_is_refused_with_what_is_allowed(name, value, text):
    X, y = flowers()
    with pytest.raises(ValueError, match=f"The '{name}' parameter of MLPClassifier must be {text}"):
        small(**{name: value}).fit(X, y)


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_every_parameter_has_its_lines_in_the_docstring_with_its_default(kind):
    text = " ".join(kind.__doc__.split())
    for name, parameter in inspect.signature(kind).parameters.items():
        if name in ("beta_1", "beta_2"):
            assert "beta_1, beta_2 : float, default=0.9 and 0.999" in text
            continue
        default = str(parameter.default).replace("0.0001", repr(1e-4))
        shown = {default, f'"{default}"', "1e-4", "0.0001"} if parameter.default == 1e-4 else {default, f'"{default}"'}
        shown |= {"1e-8"} if parameter.default == 1e-8 else set()
        assert any(re.search(rf" {name} : [^:]*?default={re.escape(each)} ", text) for each in shown), name


@pytest.mark.parametrize("params", [{"early_stopping": True}, {"calibration": "temperature"}], ids=str)
def test_rows_held_out_or_trained_on_that_all_weigh_nothing_are_refused(params):
    X, y = flowers()
    refused = set()
    for row in range(8):  # each alone has a weight
        with pytest.raises(ValueError, match="at least one non-zero number") as caught:
            small(validation_fraction=0.5, max_iter=1, **params).fit(X, y, np.arange(150) == row)
        refused.add(re.search("trained on|held out", str(caught.value))[0])
    assert refused == {"trained on", "held out"}


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_a_class_weight_that_leaves_no_weight_is_refused(solver):
    X, y = flowers()
    with pytest.raises(ValueError, match="all 150 rows that are trained on weigh 0"):
        small(solver=solver, class_weight={0: 0, 1: 0, 2: 0}).fit(X, y)


def test_a_model_that_draws_no_row_of_any_weight_is_refused():
    X, y = flowers()
    with pytest.raises(ValueError, match=r"rows that are drawn for model . weigh 0"):
        small(solver="lbfgs", n_models=30, max_iter=1).fit(X, y, np.arange(150) == 3)


def test_calibration_of_several_labels_is_refused_before_anything_is_trained():
    X, y = flowers()
    mlp = small(calibration="temperature")
    with pytest.raises(ValueError, match="one label a row"):
        mlp.fit(X, np.eye(3, dtype=int)[y])
    assert not hasattr(mlp, "coefs_")


@pytest.mark.parametrize("given", [{"y_val": [0]}, {"sample_weight_val": [1.0]}], ids=str)
def test_what_belongs_to_rows_that_are_not_given_is_refused(given):
    X, y = flowers()
    with pytest.raises(ValueError, match="came without X_val"):
        small(early_stopping=True).fit(X, y, **given)


def test_targets_of_rows_held_out_in_another_form_are_refused():
    X, y = flowers()
    several = np.eye(3, dtype=int)[y]
    for kind, one, other in (
        (MLPClassifier, y, several),
        (MLPClassifier, several, y),
        (MLPRegressor, y, several),
        (MLPRegressor, several, several[:, :2]),
    ):
        with pytest.raises(ValueError, match="y_val has shape"):
            small(kind, early_stopping=True).fit(X, one, X_val=X, y_val=other)


@pytest.mark.parametrize("sizes", [(3.5,), [[3], [2]], True, ["a"], (3, None)], ids=str)
def test_hidden_layers_that_are_no_whole_numbers_are_refused(sizes):
    X, y = flowers()
    with pytest.raises(InvalidParameterError, match="hidden_layer_sizes must be whole numbers of neurons"):
        small(hidden_layer_sizes=sizes).fit(X, y)
