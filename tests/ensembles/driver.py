"""A program that runs the small sweep on Ray, and kills itself once it has written so many rows.

driver.py FOLDER ADDRESS ROWS
"""

import os
import signal
import sys

from dying import deadly_sweep

from gpumlp.ensembles import OnRay, Watcher


class Killer(Watcher):
    def __init__(self, rows):
        self.rows = rows

    def row_added(self, row):
        self.rows -= 1
        if self.rows == 0:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    folder, address, rows = sys.argv[1:]
    sweep, X, y = deadly_sweep({})
    sweep.run(X, y, folder, executor=OnRay(address), watcher=Killer(int(rows)))
