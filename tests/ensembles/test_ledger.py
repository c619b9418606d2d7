import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import gpumlp
from gpumlp.ensembles.ledger import Ledger, file_name, read_file, read_folder
from gpumlp.errors import ConfigurationError, DataError

ROOT = str(Path(gpumlp.__file__).parents[1])


def row(key, **more):
    return {"key": key, **more}


def keys(folder):
    return [json.loads(line)["key"] for line in (folder / "results.jsonl").read_text().splitlines()]


def test_rows_are_there_again_when_the_folder_is_opened_again(tmp_path):
    folder = tmp_path / "new" / "sweep"
    with Ledger(folder) as ledger:
        ledger.add(row("a", score=0.1 + 0.2, text="é"))
        ledger.add(row("b", score=None))
    with Ledger(folder) as ledger:
        assert ledger.rows == {"a": row("a", score=0.1 + 0.2, text="é"), "b": row("b", score=None)}


def test_a_row_is_on_the_disk_as_soon_as_it_is_added(tmp_path):
    with Ledger(tmp_path) as ledger:
        ledger.add(row("a"))
        assert keys(tmp_path) == ["a"]


def test_a_key_has_one_row_however_often_it_is_added(tmp_path):
    for _ in range(2):
        with Ledger(tmp_path) as ledger:
            ledger.add(row("a", score=1))
            ledger.add(row("a", score=2))
    assert keys(tmp_path) == ["a"]
    assert ledger.rows["a"]["score"] == 1


def test_without_a_folder_rows_are_kept_in_memory():
    with Ledger() as ledger:
        ledger.add(row("a"))
        ledger.refresh()
    assert ledger.rows == {"a": row("a")}


LINES = b'{"key": "a"}\n{"key": "b", "score": 1.5}\n'


@pytest.mark.parametrize("cut", range(14, len(LINES)))
def test_a_last_line_that_is_torn_anywhere_is_dropped_and_the_next_row_starts_a_line(tmp_path, cut):
    (tmp_path / "results.jsonl").write_bytes(LINES[:cut])
    with Ledger(tmp_path) as ledger:
        assert list(ledger.rows) == ["a"]
        ledger.add(row("c"))
    assert keys(tmp_path) == ["a", "c"]


@pytest.mark.parametrize("tail", [b"\0" * 20, b"\xff\xfe\n", b"[1]\n", b'{"no": "key"}\n', b'{"key": 3}\n'])
def test_a_last_line_that_is_no_row_is_dropped(tmp_path, tail):
    (tmp_path / "results.jsonl").write_bytes(LINES + tail)
    with Ledger(tmp_path) as ledger:
        assert list(ledger.rows) == ["a", "b"]
    assert (tmp_path / "results.jsonl").read_bytes() == LINES


def test_the_torn_line_of_another_process_is_left_to_it(tmp_path):
    other = tmp_path / "results-2-of-2.jsonl"
    other.write_bytes(LINES[:20])
    with Ledger(tmp_path, (1, 2)) as ledger:
        assert list(ledger.rows) == ["a"]
    assert other.read_bytes() == LINES[:20]


def test_a_line_in_the_middle_that_is_no_row_is_refused_and_the_file_stays_as_it_is(tmp_path):
    damaged = b"{}\n" + LINES
    (tmp_path / "results.jsonl").write_bytes(damaged)
    with pytest.raises(DataError, match="line 1 is no row"), Ledger(tmp_path):
        pass
    assert (tmp_path / "results.jsonl").read_bytes() == damaged


def test_two_processes_never_write_one_file_but_shards_write_side_by_side(tmp_path):
    with Ledger(tmp_path, (1, 2)) as first, Ledger(tmp_path, (2, 2)) as second:
        with pytest.raises(ConfigurationError, match="another process writes"), Ledger(tmp_path, (1, 2)):
            pass
        first.add(row("a"))
        second.add(row("b"))
        first.refresh()
        assert set(first.rows) == {"a", "b"}
    with Ledger(tmp_path, (1, 2)) as again:
        assert set(again.rows) == {"a", "b"}


@pytest.mark.skipif(os.name != "posix", reason="locks as POSIX has them")
def test_a_folder_where_files_cannot_be_locked_is_told_as_such(tmp_path, monkeypatch):
    def refuse(file, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(ConfigurationError, match=f"{os.strerror(errno.ENOLCK)}.*choose another"), Ledger(tmp_path):
        pass


@pytest.mark.skipif(os.name != "posix", reason="kills as POSIX has them")
def test_the_lock_of_a_process_that_is_killed_is_free(tmp_path):
    program = (
        "import os, signal, sys; from gpumlp.ensembles.ledger import Ledger\n"
        "with Ledger(sys.argv[1]) as ledger: ledger.add({'key': 'a'}); os.kill(os.getpid(), signal.SIGKILL)"
    )
    ended = subprocess.run([sys.executable, "-c", program, str(tmp_path)], env={**os.environ, "PYTHONPATH": ROOT})
    assert ended.returncode == -signal.SIGKILL
    with Ledger(tmp_path) as ledger:
        assert list(ledger.rows) == ["a"]


def test_of_two_files_with_one_key_the_first_by_name_counts(tmp_path):
    for part, score in ((2, "second"), (1, "first")):
        (tmp_path / file_name((part, 2))).write_text(json.dumps(row("a", score=score)) + "\n")
    assert read_folder(tmp_path)["a"]["score"] == "first"


@pytest.mark.skipif(os.name != "posix", reason="where open files can be taken away")
def test_rows_that_are_there_outlive_their_folder(tmp_path):
    folder = tmp_path / "taken away meanwhile"
    with Ledger(folder) as ledger:
        ledger.add(row("a"))
        shutil.rmtree(folder)
        ledger.refresh()
        assert list(ledger.rows) == ["a"]


def test_a_row_with_a_number_that_json_has_not_is_refused_before_anything_is_written(tmp_path):
    with Ledger(tmp_path) as ledger, pytest.raises(ValueError, match="JSON compliant"):
        ledger.add(row("a", score=float("nan")))
    assert read_file(tmp_path / "results.jsonl") == ([], 0)


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="choose another folder"), Ledger(tmp_path / "file" / "sweep"):
        pass


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_is_told_and_the_row_does_not_count_as_kept(tmp_path):
    with Ledger(tmp_path) as ledger:
        ledger._file.close()
        ledger._file = open("/dev/full", "ab", buffering=0)  # noqa: SIM115
        with pytest.raises(ConfigurationError, match="make room"):
            ledger.add(row("a"))
        assert ledger.rows == {}
