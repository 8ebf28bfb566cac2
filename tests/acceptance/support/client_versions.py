"""The versions of official clients that are tested, and what each of them is put through.

The packages are in `client_versions/`: `node/package.json` and `python/versions.txt`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from tests.acceptance.support.server import ROOT

FOLDER = Path(__file__).resolve().parents[1] / "client_versions"
CHECKS = {
    "changes",
    "broadcast",
    "broadcast with ack",
    "presence",
    "private",
    "reconnect",
    "access token",
    "unsubscribe",
}
# supabase-js 1 knows changes alone.
OF_LEGACY = {"changes", "reconnect", "access token", "unsubscribe"}
# What a version cannot do against any server. realtime-js sends no `private` before 2.10, and 2.12
# ends its channels when it reconnects. The Python client before 2.4 fails in its own code then, and
# from 2.7 to 2.26 it cancels the task that would rejoin.
WITHOUT = {
    "realtime-js-2.0": {"private"},
    "realtime-js-2.7": {"private"},
    "realtime-js-2.8": {"private"},
    "realtime-js-2.9": {"private"},
    "realtime-js-2.12": {"reconnect"},
    "2.0.0": {"reconnect"},
    "2.0.6": {"reconnect"},
    "2.1.0": {"reconnect"},
    "2.7.0": {"reconnect"},
    "2.22.4": {"reconnect"},
    "2.26.0": {"reconnect"},
}
# These find a WebSocket of their own, and do not work with one that they are given.
OWN_TRANSPORT = ("realtime-js-2.9", "realtime-js-2.10", "realtime-js-2.11")
# Versions that listen only after an explicit call.
LISTEN_ON_CALL = ("2.0.0", "2.0.6", "2.1.0")


def javascript() -> dict[str, str]:
    """The versions in package.json, by the names they are installed under."""
    wanted = json.loads((FOLDER / "node" / "package.json").read_text())["dependencies"]
    return {
        alias: package.rpartition("@")[2]
        for alias, package in wanted.items()
        if package.startswith("npm:")
    }


def python() -> list[str]:
    """The versions in versions.txt."""
    lines = (FOLDER / "python" / "versions.txt").read_text().split()
    return [line.removeprefix("realtime==") for line in lines]


def python_folder() -> Path:
    """Where the versions are installed: an environment with what they need, a folder for each."""
    return ROOT / os.environ.get("CLIENT_VERSIONS_VENV", ".venv-python-versions")


def is_legacy(alias: str) -> bool:
    """Whether the package is from before channels and bindings."""
    return alias.startswith("supabase-js-1")


def checks(name: str) -> set[str]:
    """What a version is put through: JavaScript's by the name it is installed under."""
    return OF_LEGACY if is_legacy(name) else CHECKS - WITHOUT.get(name, set())
