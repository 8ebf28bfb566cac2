"""What is measured, one command a module: docs/explanation/performance.md."""

from __future__ import annotations

from tests.support import python

python.start_anew()
