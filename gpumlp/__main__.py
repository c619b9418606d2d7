"""`python -m gpumlp` is the command line."""

import sys

from gpumlp.cli import main

if __name__ == "__main__":
    sys.exit(main())
