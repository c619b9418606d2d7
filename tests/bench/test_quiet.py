"""How long threads stood in line for a processor."""

import os
import subprocess
import sys
from contextlib import contextmanager
from time import perf_counter, sleep

import pytest

from gpumlp.bench import quiet

on_linux = pytest.mark.skipif(quiet.waited() is None, reason="the system does not tell")


def spin(seconds):
    end = perf_counter() + seconds
    while perf_counter() < end:
        pass


def share(work):
    """Return the share of the time that threads of this process waited."""
    waited, began = quiet.waited(), perf_counter()
    work()
    return (quiet.waited() - waited) / (perf_counter() - began)


@contextmanager
def rival():
    """Let another process compute on the one processor that this thread may use."""
    processors = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(processors)})
    process = subprocess.Popen([sys.executable, "-c", "print(flush=True)\nwhile True: pass"], stdout=subprocess.PIPE)
    try:
        process.stdout.readline()
        yield
    finally:
        os.sched_setaffinity(0, processors)
        process.kill()
        process.communicate()


@on_linux
def test_two_programs_on_one_processor_wait_for_each_other():
    with rival():
        assert share(lambda: spin(0.5)) > quiet.DISTURBED


@on_linux
def test_who_sleeps_does_not_wait():
    assert 0 <= share(lambda: sleep(0.2)) < 0.5


@pytest.mark.parametrize("text", [None, "", "1\n", "a b c\n"])
def test_what_it_does_not_understand_is_not_taken_for_a_time(monkeypatch, tmp_path, text):
    (tmp_path / "1").mkdir()
    if text is not None:
        (tmp_path / "1" / "schedstat").write_text(text)
    monkeypatch.setattr(quiet, "_THREADS", tmp_path)
    assert quiet.waited() is None
    monkeypatch.setattr(quiet, "_THREADS", tmp_path / "nowhere")
    assert quiet.waited() is None


def test_the_seconds_of_all_threads_are_added_up(monkeypatch, tmp_path):
    for name, waited in (("1", 2_000_000_000), ("2", 500_000_000)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "schedstat").write_text(f"7 {waited} 3\n")
    monkeypatch.setattr(quiet, "_THREADS", tmp_path)
    assert quiet.waited() == 2.5
