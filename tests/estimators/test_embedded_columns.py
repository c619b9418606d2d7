"""Estimators that learn numbers in place of codes: what they learn, keep, take for unknown and refuse."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
from fitted import fit, same_bits
from scipy import sparse
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.metrics import get_scorer
from sklearn.model_selection import GridSearchCV
from sklearn.model_selection import cross_validate as one_by_one
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from gpumlp import Embedding, FleetSearchCV, MLPClassifier, MLPRegressor, Network, Trainer, cross_validate, load
from gpumlp.convert import load_safetensors
from gpumlp.errors import ConfigurationError, DataError, UnknownName
from gpumlp.estimators.solvers import adam
from gpumlp.estimators.weights import draw_weights

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

SHOP, CITY = 0, 2  # columns of codes, of 3 and of 7 categories
UNITS = {CITY: 3, SHOP: 2}
SIZES = (7, 9, 3)  # the two other columns and 5 learned numbers are read
KINDS = (MLPClassifier, MLPRegressor)


def rows(n=210, seed=0, n_cities=7):
    """Return X (n, 4), with codes of shops and cities, and labels (n,) that follow from all four columns."""
    draw = np.random.default_rng(seed)
    cities = draw.permutation(np.arange(n) % n_cities)
    X = np.column_stack([np.arange(n) % 3, draw.standard_normal(n), cities, draw.standard_normal(n)])
    liking = np.array([1.5, -2.0, 0.2, 2.2, -0.4, -1.1, 0.9, -1.6, 1.9])[cities]
    return X, np.digitize(liking * np.array([1.0, -1.0, 0.5])[np.arange(n) % 3] + 0.2 * X[:, 1], [-0.7, 0.7])


def small(kind=MLPClassifier, **params):
    defaults = {"hidden_layer_sizes": (9,), "random_state": 1, "max_iter": 60, "learning_rate_init": 0.02}
    return kind(**defaults | {"n_iter_no_change": 99, "batch_size": 32, "embeddings": UNITS} | params)


def read(X, tables):
    """Return what the first layer reads, (n, 7): zeros for -1 and for codes beyond a table."""
    looked_up = {c: np.vstack([E, np.zeros(E.shape[1])]) for c, E in tables.items()}
    codes = {c: np.where((X[:, c] < 0) | (X[:, c] >= len(E)), len(E), X[:, c]).astype(int) for c, E in tables.items()}
    return np.hstack([looked_up[j][codes[j]] if j in tables else X[:, [j]] for j in range(X.shape[1])])


def outputs(mlp, X, model=...):
    """Return the probabilities of a fitted classifier of one hidden layer of relu, or of one of its models."""
    a = read(X, {c: E[model] for c, E in mlp.embeddings_.items()})
    (W, V), (b, c) = [[w[model] for w in layers] for layers in (mlp.coefs_, mlp.intercepts_)]
    shares = np.exp(np.maximum(a @ W + b, 0) @ V + c)
    return shares / shares.sum(axis=1, keepdims=True)


def same(one, other):
    """Tell whether two estimators know the same, bit for bit."""
    tables = one.embeddings_, other.embeddings_
    return (
        same_bits(one, other)
        and list(tables[0]) == list(tables[1])
        and all(np.array_equal(E, F) for E, F in zip(*(each.values() for each in tables), strict=True))
    )


# -------------------------------------------------------------------- what is learned


def test_the_first_layer_reads_the_tables_that_are_published_and_may_be_written_into():
    X, y = rows()
    mlp = small().fit(X, y)
    assert [(c, E.shape) for c, E in mlp.embeddings_.items()] == [(SHOP, (3, 2)), (CITY, (7, 3))]
    assert [W.shape for W in mlp.coefs_] == [(7, 9), (9, 3)]
    np.testing.assert_allclose(mlp.predict_proba(X), outputs(mlp, X), rtol=1e-10)
    mlp.embeddings_[CITY][3] = mlp.embeddings_[CITY][5]
    at_3, at_5 = (np.where(np.arange(4) == CITY, code, X) for code in (3, 5))
    assert np.array_equal(mlp.predict_proba(at_3), mlp.predict_proba(at_5))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_fit_is_a_trainers_run_from_tables_that_are_drawn_behind_all_weights(dtype, backend):
    X, y = rows()
    random = np.random.RandomState(1)
    coefs, intercepts = draw_weights(SIZES, [False, False], dtype, random)
    tables = [random.standard_normal(shape).astype(dtype) for shape in ((3, 2), (7, 3))]
    embeddings = [Embedding(SHOP, 3, 2), Embedding(CITY, 7, 3)]
    seed = int(random.randint(2**31 - 1))
    net = Network((4, 9, 3), embeddings=embeddings, dtype=dtype, backend=backend, seed=seed)
    for l, (W, b) in enumerate(zip(coefs, intercepts, strict=True)):
        net.set_weights(l, W.T, b)
    for i, E in enumerate(tables):
        net.set_embedding(i, E)
    Trainer(net, adam(0.9, 0.999, 1e-8), 0.02, 32, l2=0.1, penalty="batch").fit(X.astype(dtype), y, 3)
    mlp = fit(small(max_iter=3, alpha=0.1, backend=backend), X.astype(dtype), y)
    assert all(np.array_equal(W[0].T, V) for W, V in zip(net.weights, mlp.coefs_, strict=True))
    assert all(np.array_equal(E[0], F) for E, F in zip(net.embeddings, mlp.embeddings_.values(), strict=True))


@pytest.mark.parametrize(
    "params",
    [
        {"solver": "lbfgs"},
        {"solver": "sgd", "learning_rate_init": 0.2},
        {"optimizer": "adamw", "clip_norm": 1.0, "dropout": 0.05},
        {"early_stopping": True, "n_iter_no_change": 30, "learning_rate_init": 0.05},
        {"normalisation": "batch"},
        {"normalisation": "layer", "solver": "lbfgs"},
        {"class_weight": "balanced", "calibration": "temperature"},
        {"n_models": 3},
        {"n_models": 3, "solver": "lbfgs"},
    ],
    ids=str,
)
def test_whatever_else_is_asked_for_codes_are_learned(params):
    X, y = rows(630)
    mlp = small(**params).fit(X, y)
    stack = () if mlp.n_models == 1 else (3,)
    assert mlp.embeddings_[CITY].shape == (*stack, 7, mlp.embeddings[CITY])
    assert mlp.score(X, y) > 0.9 > 0.8 > small(**params | {"embeddings": None}).fit(X, y).score(X, y)


def test_a_loss_has_the_penalty_on_tables_too():
    X, y = rows()
    mlp = small(MLPRegressor, max_iter=1, alpha=3.0, learning_rate_init=1e-12, batch_size=210).fit(X, y)
    learned = sum(np.vdot(w, w) for w in (*mlp.coefs_, *mlp.embeddings_.values()))
    error = np.mean((mlp.predict(X) - y) ** 2) / 2
    assert mlp.loss_ == pytest.approx(error + 3.0 / 2 / 210 * learned)


def test_a_column_of_many_categories_is_learned_as_well_as_by_one_hot_columns():
    draw = np.random.default_rng(0)
    liking, codes, x = draw.standard_normal(200), draw.integers(0, 200, 6000), draw.standard_normal((6000, 2))
    y = liking[codes] * np.sign(x[:, 0]) + 0.5 * x[:, 1] + 0.1 * draw.standard_normal(6000)
    split, X = 4000, np.column_stack([codes, x])
    hot = np.hstack([OneHotEncoder(sparse_output=False).fit_transform(X[:, :1]), x])
    params = {"hidden_layer_sizes": (16,), "learning_rate_init": 0.01, "batch_size": 200}
    embeds, ones, numbers = (
        fit(small(MLPRegressor, **params, embeddings=units), data[:split], y[:split]).score(data[split:], y[split:])
        for units, data in (({0: 8}, X), (None, hot), (None, X))
    )
    assert numbers < 0.4
    assert embeds > ones - 0.02 > 0.8


@pytest.mark.parametrize("kind", KINDS)
def test_each_model_of_a_bag_has_tables_of_its_own(kind):
    X, y = rows()
    bag = fit(small(kind, n_models=3, max_iter=5), X, y)
    assert bag.embeddings_[SHOP].shape == (3, 3, 2)
    assert not np.allclose(bag.embeddings_[SHOP][0], bag.embeddings_[SHOP][1])
    if kind is MLPClassifier:
        mean = np.mean([outputs(bag, X, m) for m in range(3)], axis=0)
        np.testing.assert_allclose(bag.predict_proba(X), mean, rtol=1e-10)


# -------------------------------------------------------------------- unknown categories


@pytest.mark.parametrize("dtype", ["float64", "float32", "int64", "uint8"])
def test_codes_above_those_of_the_fit_read_as_zeros_and_rows_stay_as_they_are(dtype):
    X, y = rows()
    mlp = small().fit(X, y)
    X[:, [1, 3]], X[::2, CITY] = 1, 200
    given = X.astype(dtype)
    before = given.copy()
    np.testing.assert_allclose(mlp.predict_proba(given), outputs(mlp, X), rtol=1e-9)
    assert np.array_equal(given, before)
    X[::2, CITY] = -1
    assert np.array_equal(mlp.predict_proba(X), mlp.predict_proba(given))


def test_a_category_that_no_row_of_the_fit_has_reads_as_one_that_is_not_known():
    X, y = rows()
    there = X[:, CITY] != 4
    mlp = small().fit(X[there], y[there])
    assert mlp.embeddings_[CITY].shape == (7, 3)
    at_4, unknown = (np.where(np.arange(4) == CITY, code, X) for code in (4, -1))
    assert np.array_equal(mlp.predict_proba(at_4), mlp.predict_proba(unknown))


def test_unknown_categories_may_be_trained_on():
    X, y = rows()
    X[::5, CITY] = -1
    mlp = small().fit(X, y)
    np.testing.assert_allclose(mlp.predict_proba(X), outputs(mlp, X), rtol=1e-10)


@pytest.mark.parametrize("scoring", [None, "neg_log_loss"])
def test_rows_held_out_may_have_further_categories(scoring):
    X, y = rows()
    V, w = rows(90, seed=3, n_cities=9)
    mlp = small(early_stopping=True, scoring=scoring, calibration="temperature").fit(X, y, X_val=V, y_val=w)
    assert mlp.embeddings_[CITY].shape == (7, 3)
    unknown = V.copy()
    unknown[V[:, CITY] >= 7, CITY] = -1
    mlp = small(early_stopping=True, scoring=scoring).fit(X, y, X_val=V, y_val=w)
    assert mlp.best_validation_score_ == pytest.approx(get_scorer(scoring or "accuracy")(mlp, unknown, w))


# -------------------------------------------------------------------- going on


@pytest.mark.parametrize("n_models", [1, 3])
def test_partial_fit_again_and_again_is_fit_bit_for_bit(n_models, backend):
    X, y = rows()
    whole, parts = fit(small(max_iter=4, n_models=n_models, backend=backend), X, y), small(n_models=n_models)
    for _ in range(4):
        parts = pickle.loads(pickle.dumps(parts.set_params(backend=backend).partial_fit(X, y, classes=[0, 1, 2])))
    assert same(whole, parts)
    assert np.array_equal(whole.predict_proba(X), parts.predict_proba(X))


@pytest.mark.parametrize("kind", KINDS)
def test_what_goes_on_keeps_the_categories_that_it_began_with(kind):
    X, y = rows()
    V, w = rows(seed=1, n_cities=9)
    known = V.copy()
    known[V[:, CITY] >= 7, CITY] = -1
    for more in ("fit", "partial_fit"):
        one, other = (fit(small(kind, warm_start=True, max_iter=2), X, y) for _ in range(2))
        getattr(one, more)(V, w)
        getattr(other, more)(known, w)
        assert one.embeddings_[CITY].shape == (7, 3)
        assert same(one, other)


def test_a_fit_begins_anew_with_the_categories_and_columns_that_it_finds():
    X, y = rows()
    mlp = fit(small(max_iter=2), X, y)
    V, w = rows(n_cities=9)
    assert same(fit(mlp, V, w), fit(small(max_iter=2), V, w))
    assert mlp.embeddings_[CITY].shape == (9, 3)
    plain = fit(mlp.set_params(embeddings=None), X, y)
    assert not hasattr(plain, "embeddings_")
    assert same_bits(plain, fit(small(max_iter=2, embeddings={}), X, y))


def test_a_clone_and_a_copy_are_asked_the_same_and_do_not_share_tables():
    X, y = rows()
    mlp = fit(small(max_iter=2), X, y)
    asked = clone(mlp)
    assert asked.embeddings == UNITS
    assert not hasattr(asked, "embeddings_")
    twin = copy.deepcopy(mlp)
    twin.embeddings_[CITY][:] = 0
    assert mlp.embeddings_[CITY].any()
    assert same(mlp, fit(asked, X, y))


# -------------------------------------------------------------------- where rows come from


def table(n=210, seed=0):
    X, y = rows(n, seed)
    towns = np.array(["Ulm", "Jena", "Bonn", "Kiel", "Graz", "Linz", "Bern"], object)
    frame = {"price": X[:, 1], "town": towns[X[:, CITY].astype(int)], "shop": X[:, SHOP].astype(int), "size": X[:, 3]}
    return pd.DataFrame(frame), y


def codes_first(**params):
    """Return a pipeline from texts: codes in front, then scaled numbers, with their names."""
    encodes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-1)
    prepares = make_column_transformer(
        (encodes, ["town", "shop"]), (StandardScaler(), ["price", "size"]), verbose_feature_names_out=False
    )
    return make_pipeline(prepares.set_output(transform="pandas"), small(**params))


def test_columns_of_a_data_frame_are_embedded_by_name_in_a_pipeline():
    X, y = table()
    by_name = codes_first(embeddings={"town": 3, "shop": 2}).fit(X, y)
    assert same(by_name[-1], codes_first(embeddings={1: 2, 0: 3}).fit(X, y)[-1])
    assert [E.shape for E in by_name[-1].embeddings_.values()] == [(7, 3), (3, 2)]
    assert by_name.score(X, y) > 0.9
    abroad, nowhere = X.assign(town="Oslo"), X.assign(town=None)
    assert np.array_equal(by_name.predict_proba(abroad), by_name.predict_proba(nowhere))


def test_rows_held_out_are_scored_and_calibrated_on_where_columns_have_names():
    X, y = table()
    params = {"early_stopping": True, "scoring": "neg_log_loss", "calibration": "temperature", "max_iter": 20}
    by_name = codes_first(embeddings={"town": 3, "shop": 2}, **params).fit(X, y)[-1]
    by_number = codes_first(embeddings={1: 2, 0: 3}, **params).fit(X, y)[-1]
    assert by_name.validation_scores_ == by_number.validation_scores_
    assert by_name.temperature_ == by_number.temperature_ != 1


def test_sparse_rows_are_read_as_dense_ones():
    X, y = rows()
    for kind in (sparse.csr_matrix, sparse.csc_matrix):
        mlp = fit(small(max_iter=3), kind(X), y)
        assert same(mlp, fit(small(max_iter=3), X, y))
        X[3, CITY] = 8
        assert np.array_equal(mlp.predict_proba(kind(X)), mlp.predict_proba(X))
        X[3, CITY] = 0


def test_missing_numbers_are_filled_and_told_behind_all_columns():
    X, y = rows()
    X[::7, 3] = np.nan
    mlp = small(missing="indicator").fit(X, y)
    assert [W.shape for W in mlp.coefs_] == [(8, 9), (9, 3)]
    filled = np.column_stack([np.where(np.isnan(X), np.nanmean(X, axis=0), X), np.isnan(X[:, 3])])
    assert np.array_equal(mlp.predict_proba(X), fit(small(), filled, y).predict_proba(filled))


def test_rows_on_a_device_are_embedded_there(cupy):
    X, y = rows()
    here, there = (fit(small(max_iter=3, backend="cuda", early_stopping=True), x, y) for x in (X, cupy.asarray(X)))
    assert same(here, there)
    X[4, CITY] = 11
    found = there.predict_proba(cupy.asarray(X))
    assert np.array_equal(cupy.asnumpy(found), here.predict_proba(X))
    for mlp, data in ((here, X), (there, cupy.asarray(X))):  # of which some are held out
        fit(mlp.set_params(warm_start=True), data, y)
    assert same(here, there)
    for wrong in (0.5, -2, cupy.nan, cupy.inf):
        X[2, CITY] = wrong
        for call in (lambda x: there.predict(x), lambda x: there.fit(x, y)):
            with pytest.raises(DataError, match=r"X\[2, 2\] is .*, but column 2 is embedded"):
                call(cupy.asarray(X))


# -------------------------------------------------------------------- searches


def both(estimator, grid, X, y):
    fleet, alone = (search(estimator, grid, cv=3, refit=False).fit(X, y) for search in (FleetSearchCV, GridSearchCV))
    for name in [name for name in alone.cv_results_ if "score" in name and "time" not in name]:
        np.testing.assert_allclose(fleet.cv_results_[name], alone.cv_results_[name], rtol=1e-9, err_msg=name)
    return fleet


GRID = {"embeddings": [None, {CITY: 3}, UNITS], "hidden_layer_sizes": [(5,), (9,)]}


@pytest.mark.parametrize("rare", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_candidates_that_embed_are_trained_together_as_they_would_be_alone(kind, rare):
    X, y = rows(120)
    if rare:  # the largest code is in one row, so that one of the splits is trained without it
        X[17, CITY] = 8
    both(small(kind, max_iter=4), GRID, X, y)


def test_candidates_embed_columns_of_a_data_frame_by_name():
    X, y = table(120)
    grid = [{"mlpclassifier__embeddings": [{"town": 2}, {"town": 4, "shop": 1}]}]
    both(codes_first(max_iter=4), grid, X, y)
    codes = X.assign(town=np.arange(120) % 7)
    both(small(max_iter=4), {"embeddings": [None, {2: 2}, {"town": 2}, {"town": 4, "shop": 1}]}, codes, y)


def test_folds_that_hold_rows_out_embed_as_they_would_alone():
    X, y = rows(120)
    X[17, CITY] = 8
    mlp = small(max_iter=5, early_stopping=True)
    scores = [validate(mlp, X, y, cv=3)["test_score"] for validate in (cross_validate, one_by_one)]
    np.testing.assert_allclose(*scores)


# -------------------------------------------------------------------- ways out


@pytest.mark.parametrize("n_models", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_saved_models_answer_as_the_estimator(kind, n_models, tmp_path):
    X, y = rows()
    X[::9, CITY] = -1
    mlp = fit(small(kind, n_models=n_models, max_iter=5), X, y)
    saved = load(mlp.save(tmp_path / "m.npz"))
    for model in (saved, load_safetensors(mlp.save_safetensors(tmp_path / "m.safetensors"))):
        np.testing.assert_allclose(model.predict(X), mlp.predict(X), rtol=1e-12)
    X[4, CITY] = 11
    with pytest.raises(DataError, match=r"X\[4, 2\] is 11, but column 2 is embedded"):
        saved.predict(X)


def test_a_calibrated_model_is_saved_with_its_tables_as_they_are(tmp_path):
    X, y = rows()
    mlp = fit(small(calibration="temperature", max_iter=20), X, y)
    np.testing.assert_allclose(load(mlp.save(tmp_path / "m.npz")).probabilities(X), mlp.predict_proba(X), rtol=1e-9)


@pytest.mark.parametrize("n_models", [1, 3])
def test_onnx_answers_as_the_estimator_to_new_codes_too(n_models, tmp_path):
    pytest.importorskip("onnx", reason='onnx is not installed (extra "onnx")')
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed, which would run the file")
    X, y = rows()
    mlp = fit(small(n_models=n_models, max_iter=5), X, y)
    X[::4, CITY] = 11
    session = runtime.InferenceSession(mlp.to_onnx(tmp_path / "m.onnx"), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"X": X})[1], mlp.predict_proba(X), atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_torch_answers_as_the_estimator_and_brings_it_back(kind):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed, to which it would be given")
    X, y = rows()
    mlp = fit(small(kind, max_iter=5), X, y)
    sequential = mlp.to_torch()
    back = kind.from_torch(sequential, classes=[0, 1, 2]) if kind is MLPClassifier else kind.from_torch(sequential)
    assert same(mlp, back)
    assert back.embeddings == UNITS
    X[::4, CITY] = 11
    answers = mlp.predict_proba if kind is MLPClassifier else lambda rows: mlp.predict(rows)[:, None]
    with torch.no_grad():
        np.testing.assert_allclose(sequential(torch.from_numpy(X)).numpy(), answers(X), atol=1e-10)
    assert np.array_equal(back.predict(X), mlp.predict(X))
    assert back.partial_fit(X, y).embeddings_[CITY].shape == (7, 3)


# -------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "wrong", [3, ["city"], {"city": 0}, {1: 2.5}, {1: True}, {-1: 2}, {1.0: 2}, {False: 2}], ids=str
)
def test_what_names_no_columns_and_units_is_refused(kind, wrong):
    with pytest.raises(ValueError, match=rf"'embeddings' parameter of {kind.__name__} must be a dict from columns"):
        small(kind, embeddings=wrong).fit(*rows())


def test_a_column_that_there_is_not_is_named():
    X, y = rows()
    frame = pd.DataFrame(X, columns=["shop", "price", "city", "size"])
    for params, data, error, message in (
        ({4: 2}, X, ConfigurationError, "no column 4; X has columns 0 to 3"),
        ({"city": 2}, X, ConfigurationError, "column 'city' is given by name, but X has no names; give its number"),
        ({"citi": 2}, frame, UnknownName, "unknown column of embeddings 'citi'; did you mean 'city'"),
        ({"city": 2, 2: 3}, frame, ConfigurationError, "2 is column 2, which comes twice"),
    ):
        with pytest.raises(error, match=message):
            small(embeddings=params).fit(data, y)


@pytest.mark.parametrize("missing", ["error", "indicator"])
@pytest.mark.parametrize(("wrong", "told"), [(2.5, "2.5"), (-2, "-2"), (1234567.5, "1234567.5"), (np.nan, "nan")])
def test_what_is_no_code_is_told_with_its_column_and_value(wrong, told, missing):
    X, y = rows()
    mlp = small(missing=missing).fit(X, y)
    X[5, CITY] = wrong
    for call in (
        lambda: mlp.fit(X, y),
        lambda: mlp.predict(X),
        lambda: mlp.partial_fit(X, y),
        lambda: small(early_stopping=True, missing=missing).fit(*rows(), X_val=X, y_val=y),
    ):
        with pytest.raises(DataError, match=rf"X\[5, 2\] is {told}, but column 2 is embedded .*OrdinalEncoder\("):
            call()
    frame = pd.DataFrame(X, columns=["shop", "price", "city", "size"])
    with pytest.raises(DataError, match=rf"X\[5, 2\] is {told}, but column 2, 'city', is embedded"):
        small(embeddings={"city": 2}, missing=missing).fit(frame, y)
    with pytest.raises(ValueError, match=rf"X\[5, 2\] is {told}"):
        small(missing=missing).fit(sparse.csr_matrix(X), y)


def test_missing_numbers_beside_codes_are_refused_in_scikit_learns_words():
    X, y = rows()
    mlp = fit(small(max_iter=1), X, y)
    X[5, 3] = np.nan
    for call in (lambda: mlp.fit(X, y), lambda: mlp.predict(X), lambda: mlp.partial_fit(sparse.csr_matrix(X), y)):
        with pytest.raises(ValueError, match=r"Input X contains NaN\.\nMLPClassifier does not accept missing values"):
            call()


def test_a_column_without_categories_or_with_too_many_is_refused():
    X, y = rows()
    for code, error, message in (
        (-1, DataError, "column 2 of X is embedded, but all its codes are -1"),
        (2**24, ConfigurationError, "n_categories has to be a whole number from 1 to 16777216"),
        (1e300, ConfigurationError, "n_categories has to be"),
    ):
        X[:, CITY] = code
        with pytest.raises(error, match=message):
            small().fit(X, y)


def test_a_training_goes_on_with_the_columns_that_it_began_with():
    X, y = rows()
    mlp = fit(small(max_iter=1), X, y)
    for other in ({CITY: 3}, {CITY: 4, SHOP: 2}, None):
        with pytest.raises(ConfigurationError, match=r"that is to go on are \{0: 2, 2: 3\}; leave them as they were"):
            mlp.set_params(embeddings=other).partial_fit(X, y)
    with pytest.raises(ConfigurationError, match="begin anew"):
        fit(small(embeddings=None, max_iter=1, warm_start=True), X, y).set_params(embeddings=UNITS).fit(X, y)


def test_an_mlp_of_scikit_learn_has_no_place_for_embeddings():
    with pytest.raises(ConfigurationError, match=r"embeds no columns, this estimator does so with 0, 2; use to_torch"):
        fit(small(max_iter=1), *rows()).to_sklearn()
