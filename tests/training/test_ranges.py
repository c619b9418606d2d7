"""NVTX ranges: asked for or not, they change nothing, and where they do nothing a line says so."""

import logging
from contextlib import contextmanager

import pytest
from comparing import theta
from small import data, network

import gpumlp
from gpumlp.backends.numpy_backend import NumpyBackend
from gpumlp.errors import ConfigurationError
from gpumlp.training.ranges import marker


def test_where_ranges_do_nothing_a_line_says_so(caplog):
    with caplog.at_level(logging.INFO, "gpumlp"):
        gpumlp.Trainer(network(backend="numpy"), nvtx=True).fit(*data(), 1)
    assert [r.message for r in caplog.records if "NVTX" in r.message] == [
        "NVTX ranges do nothing here: backend numpy computes on the processor, NVIDIA's profilers show what cuda does"
    ]


def test_a_training_with_ranges_is_the_same(backend):
    nets = []
    for nvtx in (False, True):
        nets.append(network(backend=backend))
        gpumlp.Trainer(nets[-1], batch_size=10, nvtx=nvtx).fit(*data(), 2, validation=data(n=5))
    assert (theta(nets[0]) == theta(nets[1])).all()


def test_epochs_steps_and_evaluations_are_ranges(monkeypatch):
    seen, depth = [], []

    @contextmanager
    def opened(name):
        depth.append(name)
        seen.append("/".join(depth))
        yield
        depth.pop()

    monkeypatch.setattr(NumpyBackend, "ranges", lambda self: opened)
    gpumlp.Trainer(network(backend="numpy"), batch_size=10, nvtx=True).fit(*data(), 2, validation=data(n=5))
    assert seen == ["epoch", *["epoch/step"] * 3, "epoch/evaluate"] * 2


def test_nothing_stands_around_the_work_where_no_range_is_wanted():
    assert marker(NumpyBackend(), False)("step", data) is data


@pytest.mark.parametrize(("given", "wanted"), [("1", True), ("0", False), ("", False)])
def test_the_environment_asks_for_ranges_and_an_argument_beats_it(given, wanted, monkeypatch):
    monkeypatch.setenv("GPUMLP_NVTX", given)
    assert gpumlp.Trainer(network()).nvtx is wanted
    assert gpumlp.Trainer(network(), nvtx=not wanted).nvtx is not wanted


def test_the_environment_is_read_strictly(monkeypatch):
    monkeypatch.setenv("GPUMLP_NVTX", "yes")
    with pytest.raises(ConfigurationError, match="expected 1 to mark ranges"):
        gpumlp.Trainer(network())


def test_the_command_line_tells_that_ranges_do_nothing(capsys):
    from gpumlp.cli import main

    assert main(["train", "iris", "--epochs", "1", "--nvtx", "--backend", "numpy"]) == 0
    assert "NVTX ranges do nothing here" in capsys.readouterr().err
