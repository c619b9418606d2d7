import os
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).parents[1] / "fuzz" / "run.py"


@pytest.mark.skipif(os.name != "posix", reason="limits of memory are POSIX's")
def test_damaged_files_of_every_kind_are_answered_by_named_errors_within_memory_and_time(tmp_path):
    command = [sys.executable, str(RUN), "--examples", "60", "--seed", "1"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "no break of the law" in ended.stdout
