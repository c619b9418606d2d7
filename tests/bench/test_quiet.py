"""How long threads stood in line for a processor, and how long others had one."""

import os
import subprocess
import sys
from contextlib import contextmanager
from time import perf_counter, sleep

import pytest

from gpumlp.bench import quiet

on_linux = pytest.mark.skipif(quiet.waited() is None or quiet.others() is None, reason="the system does not tell")


def spin(seconds):
    end = perf_counter() + seconds
    while perf_counter() < end:
        pass


def shares(work):
    """Return the shares of the time that threads of this process waited, and that others had a processor."""
    waited, others, began = quiet.waited(), quiet.others(), perf_counter()
    work()
    took = perf_counter() - began
    return (quiet.waited() - waited) / took, (quiet.others() - others) / took


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
        waited, others = shares(lambda: spin(0.5))
    assert waited > quiet.DISTURBED
    assert others > quiet.DISTURBED


@on_linux
def test_who_sleeps_does_not_wait():
    waited, _ = shares(lambda: sleep(0.2))
    assert 0 <= waited < 0.5


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


@pytest.mark.skipif(not hasattr(os, "sysconf"), reason="is about systems with /proc")
def test_others_have_what_all_have_but_for_idle_time_and_guests_that_count_twice(monkeypatch, tmp_path):
    (tmp_path / "stat").write_text("cpu  100 20 30 9999 8888 4 5 6 777 66\ncpu0 1 2 3\n")
    monkeypatch.setattr(quiet, "_ALL", tmp_path / "stat")
    monkeypatch.setattr(quiet, "process_time", lambda: 0.5)
    assert quiet.others() == pytest.approx(165 / os.sysconf("SC_CLK_TCK") - 0.5)
    for text in ("cpu a b\n", ""):
        (tmp_path / "stat").write_text(text)
        assert quiet.others() is None
    monkeypatch.setattr(quiet, "_ALL", tmp_path / "nowhere")
    assert quiet.others() is None
