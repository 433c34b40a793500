"""`python -m benchmarks curvature|spectrum|training|plot`, with the options of that module.

A module that is run by its own name would be loaded a second time by the processes that measure memory.
"""

import importlib
import sys

if __name__ == "__main__":
    importlib.import_module(f"benchmarks.{sys.argv.pop(1)}").main()
