"""Rows in which some columns are codes of categories, and networks that embed them."""

import numpy as np

from gpumlp import Embedding, Network

CITIES, SHOPS = Embedding(1, 5, 3), Embedding(3, 2, 2)
EMBEDDINGS = (CITIES, SHOPS)
N_COLUMNS, N_OUT = 5, 3
SIZES = (N_COLUMNS, 6, 4, N_OUT)


def data(n=23, seed=0, labels=True, embeddings=EMBEDDINGS, n_columns=N_COLUMNS):
    """Return X (n, n_columns) with every code, known or not, and labels (n,), or targets (n, N_OUT)."""
    draw = np.random.default_rng(seed)
    X = draw.standard_normal((n, n_columns))
    for embedding in embeddings:
        codes = np.arange(n) % (embedding.n_categories + 1) - 1
        X[:, embedding.column] = draw.permutation(codes)
    return X, draw.integers(0, N_OUT, n) if labels else draw.uniform(0.1, 0.9, (n, N_OUT))


def network(backend, sizes=SIZES, activation="tanh", embeddings=EMBEDDINGS, dtype="float64", **options):
    return Network(sizes, activation, embeddings=embeddings, dtype=dtype, backend=backend, **options)


def one_hot(X, embeddings=EMBEDDINGS):
    """Return X with a column for each category in place of codes, all 0 where the code is not known."""
    of_column = {e.column: e for e in embeddings}
    columns = [
        X[:, [j]] if j not in of_column else X[:, [j]] == np.arange(of_column[j].n_categories)
        for j in range(X.shape[1])
    ]
    return np.concatenate(columns, axis=1).astype(float)


def blocks(net, model):
    """Return the weights (n_embedded, columns of one_hot) of the linear layer that the embeddings of a model are."""
    embeddings, tables = net.architecture.embeddings, [E[model] for E in net.embeddings]
    of_column = {e.column: E.T for e, E in zip(embeddings, tables, strict=True)}
    parts = [of_column.get(j, np.ones((1, 1))) for j in range(net.sizes[0])]
    W = np.zeros((sum(len(part) for part in parts), sum(part.shape[1] for part in parts)))
    row = column = 0
    for part in parts:
        W[row : row + len(part), column : column + part.shape[1]] = part
        row, column = row + len(part), column + part.shape[1]
    return W
