"""`python -m benchmarks curvature|spectrum|training|plot`: run the named module, which parses the options that follow.

A module is not run directly, because the processes that measure memory would then load it a second time.
"""

import importlib
import sys

if __name__ == "__main__":
    importlib.import_module(f"benchmarks.{sys.argv.pop(1)}").main()
