"""python -m emulated_gpu script.py ... or python -m emulated_gpu -m module ..."""

import os
import runpy
import sys

import emulated_gpu

if len(sys.argv) < 2 or (sys.argv[1] == "-m" and len(sys.argv) < 3):
    sys.exit(__doc__)
emulated_gpu.install()
if sys.argv[1] == "-m":
    sys.argv = sys.argv[2:]
    sys.path.insert(0, os.getcwd())
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
else:
    sys.argv = sys.argv[1:]
    sys.path.insert(0, os.path.dirname(os.path.abspath(sys.argv[0])))
    runpy.run_path(sys.argv[0], run_name="__main__")
