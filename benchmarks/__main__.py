"""`python -m benchmarks curvature|spectrum|training|plot`, with the options of that module.

Modules are not run directly, because the processes that measure memory would then load them a second time.
"""

import importlib
import sys

if __name__ == "__main__":
    importlib.import_module(f"benchmarks.{sys.argv.pop(1)}").main()
