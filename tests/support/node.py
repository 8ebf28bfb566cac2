"""The Node.js that drives the official clients, and builds the page of the tutorial.

Run as a module this says what is missing, and exits with 1.
"""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
import sys

NEEDED = "Node.js 22.12 or newer with npm (or 20.19 and newer ones of 20), as Vite asks for"


def is_enough(version: str) -> bool:
    """Whether a version such as "v22.12.0" is one that the packages of the tests run on."""
    found = re.match(r"v(\d+)\.(\d+)\.", version)
    if found is None:
        return False
    major, minor = int(found[1]), int(found[2])
    return major > 22 or (major == 22 and minor >= 12) or (major == 20 and minor >= 19)


@functools.cache
def missing() -> str:
    """Why nothing can be run with Node.js here; empty when it can."""
    node = shutil.which("node")
    if node is None or shutil.which("npm") is None:
        return f"node or npm is not on the PATH: install {NEEDED}"
    asked = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=60)
    version = asked.stdout.strip()
    if not is_enough(version):
        return f"{node} is Node.js {version or 'of no known version'}: install {NEEDED}"
    return ""


if __name__ == "__main__":
    print(missing(), end="")
    sys.exit(1 if missing() else 0)
