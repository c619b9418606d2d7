"""A normalised network predicts and learns as PyTorch's BatchNorm1d and LayerNorm do."""

import numpy as np
import pytest

import gpumlp

torch = pytest.importorskip("torch", reason="needs PyTorch", exc_type=ImportError)
SIZES, ROWS = (4, 7, 5, 3), 23


def modules(kinds):
    """The same layers in PyTorch, double, with weights of its own."""
    torch.manual_seed(0)
    found = []
    for n_in, n_out, kind in zip(SIZES[:-1], SIZES[1:], (*kinds, None), strict=True):
        found.append(torch.nn.Linear(n_in, n_out))
        if kind is not None:
            found.append(torch.nn.BatchNorm1d(n_out) if kind == "batch" else torch.nn.LayerNorm(n_out))
        found.append(torch.nn.Tanh())
    return torch.nn.Sequential(*found[:-1]).double()


def carry_over(sequential, net):
    """Give the network what the modules have."""
    layer = -1
    for module in sequential:
        values = {name: x.detach().numpy() for name, x in module.state_dict().items() if x.ndim}
        if isinstance(module, torch.nn.Linear):
            layer += 1
            net.set_weights(layer, values["weight"], values["bias"])
        elif values:
            running = {new: values[old] for old, new in RUNNING.items() if old in values}
            net.set_normalisation(layer, gamma=values["weight"], beta=values["bias"], **running)


RUNNING = {"running_mean": "running_mean", "running_var": "running_variance"}


def data():
    rng = np.random.default_rng(0)
    return 3 * rng.standard_normal((ROWS, SIZES[0])) + 2, rng.standard_normal((ROWS, SIZES[-1]))


@pytest.mark.parametrize(
    "kinds", [("batch", "batch"), ("layer", "layer"), ("batch", None), ("layer", "batch")], ids=str
)
def test_it_learns_and_predicts_as_in_torch(kinds, backend):
    X, Y = data()
    sequential = modules(kinds)
    net = gpumlp.Network(SIZES, "tanh", "identity", "quadratic", normalisation=kinds, dtype="float64", backend=backend)
    carry_over(sequential, net)
    optimizer = torch.optim.SGD(sequential.parameters(), lr=0.1)
    batches = [slice(start, start + 5) for start in range(0, ROWS, 5)]
    sequential.train()
    for _ in range(3):
        for rows in batches:
            outputs = sequential(torch.from_numpy(X[rows]))
            cost = 0.5 * ((outputs - torch.from_numpy(Y[rows])) ** 2).sum(dim=1).mean()
            optimizer.zero_grad()
            cost.backward()
            optimizer.step()
    gpumlp.Trainer(net, "sgd", learning_rate=0.1, batch_size=5, shuffle=False).fit(X, Y, 3)
    sequential.eval()
    with torch.no_grad():
        wanted = sequential(torch.from_numpy(X)).numpy()
    assert np.allclose(net.predict(X)[0], wanted, rtol=1e-9, atol=1e-11)
    twin = gpumlp.Network(SIZES, "tanh", "identity", "quadratic", normalisation=kinds, dtype="float64", backend=backend)
    carry_over(sequential, twin)
    for found, own in zip(net.normalising, twin.normalising, strict=True):
        for name, value in own.items():
            assert np.allclose(found[name], value, rtol=1e-9, atol=1e-11), name
