"""What is measured, one command a module: docs/explanation/performance.md."""

from __future__ import annotations

import sys

from tests.support import python

# So it is while the interpreter looks for the module that `-m` names. Tests import these modules
# too, and what a process of the tests starts, begins as before.
if sys.argv[0] == "-m":
    python.start_anew()
