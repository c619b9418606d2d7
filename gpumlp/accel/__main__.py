"""`python -m gpumlp.accel` runs a program."""

import sys

from gpumlp.accel.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
