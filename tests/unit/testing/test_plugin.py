"""The plugin is loaded by every run of pytest, also where nothing of Django is set up."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys
import realtime.testing.plugin
import realtime.testing
loaded = {name.partition(".")[0] for name in sys.modules}
assert "django" not in loaded and "channels" not in loaded and "msgspec" not in loaded
assert set(realtime.testing.__all__) <= set(dir(realtime.testing))
"""


def test_loading_it_imports_nothing_of_django() -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", CODE], check=True)
