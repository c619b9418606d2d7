"""What a graph uses lives as long as the graph; trainings on one device do not disturb each other."""

import gc
import threading

import numpy as np
import pytest
from cuda_cases import draw, on_host, opened, put
from cuda_runs import TRAININGS, expect_same_bits, run_python, train
from devices import in_use

import gpumlp
from gpumlp.backends.protocol import POSITION
from gpumlp.backends.select import get_backend

emulated_only = pytest.mark.skipif(in_use().kind != "emulated", reason="needs what the emulated device makes visible")


class Replayed:
    """A captured step with all that it uses, which can be set back to the first batch of an epoch."""

    def __init__(self, captured):
        self.captured = captured
        self.arrays = list({(x.data.ptr, x.shape): x for x in captured.kept}.values())
        for x in self.arrays:
            if x.shape == (3,) and x.dtype == np.int64:
                x[POSITION] = 0  # of the clock
        self.before = [x.copy() for x in self.arrays]

    def set_back(self):
        for x, was in zip(self.arrays, self.before, strict=True):
            x[...] = was

    def written(self):
        return [x.get().tobytes() for x in self.arrays]


@pytest.mark.parametrize("name", list(TRAININGS))
def test_a_hundred_replays_on_the_same_inputs_write_the_same_bits(name):
    noted = []
    train("cuda", noted=noted, **TRAININGS[name])
    with opened("cuda", "float32").session():
        for step in (Replayed(noted[0]), Replayed(noted[1])):  # of the training, of the validation
            start, wanted = step.written(), None
            for _ in range(100):
                step.set_back()
                step.captured()
                found = step.written()
                assert wanted is None or found == wanted
                wanted = found
            assert wanted != start


def test_the_arrays_of_a_graph_live_as_long_as_it():
    b = get_backend("cuda", dtype="float32")

    def build():
        x, y = (put(b, draw(seed, 3, 1000)) for seed in (1, 2))
        z = put(b, np.zeros((3, 5, 7)))

        def step():
            b.copy(x, y)
            b.linear(put_once[0], put_once[1], z)
            b.add(put_once[2], put_once[3])

        put_once = [put(b, draw(3, 3, *shape)) for shape in ((5, 4), (7, 4), (5, 6), (5, 6))]
        captured = b.capture(step)
        captured()
        captured()
        return captured

    with b.session():
        captured = build()
        captured._step = None  # the graph alone keeps what it uses, not the function that was recorded
        gc.collect()
        others = [put(b, np.full((3, n), np.nan)) for n in (28, 60, 84, 105, 1000, 3000) for _ in range(4)]
        captured()
    shapes = {x.shape: on_host(b, x) for x in captured.kept}
    assert {(3, 1000), (3, 5, 4), (3, 7, 4), (3, 5, 7), (3, 5, 6)} <= set(shapes)
    assert np.isfinite(shapes[3, 5, 7]).all()
    assert all(np.isnan(b.to_host(x)).all() for x in others)


ORPHAN = """
import devices
devices.in_use()
import gc
import emulated_gpu, numpy as np
from cuda_cases import draw
from cuda_runs import graphs_in, note_captures
import gpumlp
emulated_gpu.memcheck()  # what is freed is unmapped: a replay that uses it ends in an error

net = gpumlp.Network((4, 33, 7, 2), "gelu", "identity", "quadratic", n_models=3, dropout=0.2, backend="cuda")
noted = note_captures(net.backend)
trainer = gpumlp.Trainer(net, batch_size=5, clip_norm=1.0)
X, Y = draw(1, 23, 4), draw(2, 23, 2)
trainer.fit(X, Y, 2, (X, Y), sample_weight=np.ones((3, 23)))
device = net.backend._device
noted = graphs_in(noted)
assert len(noted) == 2
del net, trainer, X, Y
for captured in noted:
    captured._step = None
gc.collect()
with device.session():
    for captured in noted:
        for clock in (x for x in captured.kept if x.shape == (3,) and x.dtype == np.int64):
            clock.fill(0)
        for _ in range(3):
            captured()
    device.stream.synchronize()
print("done")
"""


@emulated_only
@pytest.mark.parametrize("mode", ["eager", "lazy"])
def test_a_step_outlives_its_network(mode):
    settings = {"GPUMLP_TEST_DEVICE": "emulated", "EMULATED_GPU_MODE": mode, "EMULATED_GPU_ALIGN": "16"}
    assert run_python(["-c", ORPHAN], **settings) == "done\n"


def test_nothing_of_a_network_stays_on_the_device_when_it_is_gone():
    cp = opened("cuda", "float32")._device.cupy
    used = []
    for _ in range(4):
        train("cuda", **TRAININGS["classes, dropout, clipping, decay"])
        gc.collect()
        used.append(cp.get_default_memory_pool().used_bytes())
    assert used[1:] == used[:-1]


# ---------------------------------------------------------------- several at once

TWO = [
    {"sizes": (4, 33, 3), "activation": "relu", "dropout": 0.3, "clip_norm": 0.5, "batch_size": 5, "epochs": 4},
    {"sizes": (4, 130, 33, 3), "n_models": 3, "activation": "relu", "batch_size": 6, "n_rows": 24, "epochs": 5},
]


def in_threads(work):
    """Run functions at once, and return what each returns."""
    found, errors = [None] * len(work), []

    def run(i):
        try:
            found[i] = work[i]()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(work))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert not errors
    return found


def test_steps_of_two_networks_in_turns_write_what_each_writes_alone():
    steps = []
    for options in TWO:
        noted = []
        train("cuda", noted=noted, **options)
        steps.append(noted[0])
    with opened("cuda", "float32").session():
        steps, alone = [Replayed(step) for step in steps], []
        for step in steps:
            for _ in range(4):
                step.captured()
            alone.append(step.written())
            step.set_back()
        for _ in range(4):
            for step in steps:
                step.captured()
        assert [step.written() for step in steps] == alone


def test_a_training_within_the_steps_of_another_changes_neither():
    alone, within = [train("cuda", **options) for options in TWO], []

    class Inner(gpumlp.Monitor):
        def step_ended(self, step):
            if step == 3:
                within.append(train("cuda", **TWO[1]))

    expect_same_bits(train("cuda", monitors=[Inner()], **TWO[0]), alone[0])
    assert len(within) == TWO[0]["epochs"]
    for found in within:
        expect_same_bits(found, alone[1])


def test_threads_that_train_at_once_give_what_each_gives_alone():
    alone = [train("cuda", **options) for options in TWO]
    for found in (in_threads([lambda o=o: train("cuda", **o) for o in TWO]) for _ in range(3)):
        for result, wanted in zip(found, alone, strict=True):
            expect_same_bits(result, wanted)


def test_one_network_predicts_in_many_threads():
    net = gpumlp.Network((4, 33, 3), backend="cuda", n_models=2)
    inputs = [draw(i, 5 + i, 4) for i in range(6)]
    alone = [net.predict(X) for X in inputs]
    found = in_threads([lambda X=X: [net.predict(X) for _ in range(10)] for X in inputs])
    for outputs, wanted in zip(found, alone, strict=True):
        assert all(np.array_equal(output, wanted) for output in outputs)
