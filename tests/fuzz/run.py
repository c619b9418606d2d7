"""Damaged files by the thousand: python tests/fuzz/run.py [--seconds 300] [--kinds NAME,NAME] [--examples N --seed N].

Each kind of file is read in a process of its own that may take so much memory and so long for one file, and in which
nothing but a named error of gpumlp may be raised. A file that breaks this law stays in build/fuzz.
It is looked for twice, so many seconds each: by hypothesis, and where atheris is installed by this, which is guided by
the branches that the files reach.
"""

import argparse
import faulthandler
import gc
import os
import signal
import subprocess
import sys
import time
import warnings
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import FunctionType

from inputs import answered, damaged, damages, repacked, whole_files

MEMORY = 3 * 2**30  # bytes of address space of a process that reads damaged files
SECONDS_A_FILE = 10
KEPT = Path("build", "fuzz")
GUIDES = ("gpumlp", "numpy.lib", "json", "csv", "zipfile", "gzip")  # modules whose branches guide atheris
ADDED = 64  # bytes by which it may lengthen what is inside an archive at once


def main():
    options = parse()
    if options.child:
        return look_for_breaks(options)
    failures = []
    whole = whole_files()
    kinds = options.kinds.split(",") if options.kinds else list(whole)
    engines = ["hypothesis", *(["atheris"] if options.seconds and find_spec("atheris") else [])]
    if options.seconds and len(engines) == 1:
        print(f"atheris is not installed (it has no wheel for every Python; this is {sys.version.split()[0]}): skipped")
    for engine in engines:
        if options.examples:  # all kinds in one process: starting one takes longer than reading its files
            failures += [child(engine, ",".join(kinds), options, 0)]
        else:
            share = options.seconds / len(kinds)
            failures += [child(engine, kind, options, share) for kind in kinds]
    failures = [failure for failure in failures if failure]
    print("\n".join(failures) or f"no break of the law in {len(kinds)} kinds of files")
    return 1 if failures else 0


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=0)
    parser.add_argument("--examples", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default="")
    parser.add_argument("--child", default="")
    return parser.parse_args()


def child(engine, kinds, options, seconds):
    """Look for breaks in a process of its own; return what went wrong, or nothing."""
    command = [sys.executable, __file__, "--child", engine, "--kinds", kinds, "--seconds", str(seconds)]
    command += ["--examples", str(options.examples), "--seed", str(options.seed)]
    ended = subprocess.run(command, env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}, check=False)
    if ended.returncode == 0:
        return ""
    how = signal.Signals(-ended.returncode).name if ended.returncode < 0 else f"status {ended.returncode}"
    return f"{engine}: {kinds}: ended with {how}; the file is in {KEPT}"


def look_for_breaks(options):
    """Run in the child."""
    limit_memory()
    warnings.simplefilter("error")
    whole = whole_files()
    KEPT.mkdir(parents=True, exist_ok=True)
    for kind in options.kinds.split(","):
        answered(kind, whole[kind], KEPT)  # what a reader imports takes its time, and is not the file's
        if options.child == "atheris":
            by_atheris(kind, whole[kind], options.seconds)
        else:
            n = by_hypothesis(kind, whole[kind], options)
            print(f"{kind}: {n:,} files", flush=True)
    return 0


def limit_memory():
    try:
        import resource
    except ImportError:
        print("this system has no resource limits: memory is not watched")
        return
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def watched(kind, content):
    """Read one file under a limit of time; it stays in KEPT if it breaks the law or the process."""
    faulthandler.dump_traceback_later(SECONDS_A_FILE, exit=True)
    answered(kind, content, KEPT)
    faulthandler.cancel_dump_traceback_later()


def by_hypothesis(kind, whole, options):
    from hypothesis import HealthCheck, given, seed, settings
    from hypothesis import strategies as st

    done, number = 0, options.seed
    end = time.monotonic() + options.seconds

    def law(steps, inside):
        nonlocal done
        done += 1
        change = partial(damaged, steps=steps)
        watched(kind, repacked(whole, steps[0][1], change) if inside and is_packed(kind) else change(whole))

    n_examples = options.examples or 500
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large]
    how = settings(max_examples=n_examples, deadline=None, database=None, suppress_health_check=checks)
    while True:
        seed(number)(how(given(damages, st.booleans())(law)))()
        number += 1
        if options.examples or time.monotonic() > end:
            return done


def is_packed(kind):
    return kind.endswith((".npz", ".gz"))


def by_atheris(kind, whole, seconds):
    """Does not return."""
    import atheris

    corpus = KEPT / f"corpus-{kind}"
    corpus.mkdir(exist_ok=True)
    (corpus / "whole").write_bytes(whole)
    for each in gc.get_objects():
        if isinstance(each, FunctionType) and str(each.__module__).startswith(GUIDES):
            atheris.instrument_func(each)

    def inside(content, _, seed):
        place = seed % 1009 / 1009
        return repacked(content or whole, place, lambda member: atheris.Mutate(member, len(member) + ADDED))

    limits = [f"-max_total_time={int(seconds)}", f"-timeout={SECONDS_A_FILE}"]
    arguments = [*limits, f"-artifact_prefix={KEPT}/", "-verbosity=0", "-print_final_stats=1", str(corpus)]
    how = {"custom_mutator": inside} if is_packed(kind) else {}
    print(f"{kind}, by atheris:", flush=True)
    atheris.Setup([sys.argv[0], *arguments], lambda content: answered(kind, content, KEPT), **how)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
