"""The state of a SQLite log, kept beside the database file as evidence that the file is still the
one that clients know.

A file that was restored from a backup or copied does not show that. So the log's epoch, its last
number and the file's identity are kept in a small file of the same name with `-rowcast` appended. A
backup does not have it, or has an older one.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass

from django.db.backends.base.base import BaseDatabaseWrapper

SUFFIX = "-rowcast"
# Longer than any evidence, so that one write replaces an older one completely.
_BYTES = 256


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the log has reached. `file` identifies the database file: device and inode number."""

    epoch: str
    seq: int
    file: str


def path_of(connection: BaseDatabaseWrapper) -> str | None:
    """The database file; None for a database in memory, and for one that is named by a URI."""
    name = str(connection.settings_dict["NAME"])
    if not name or ":memory:" in name or "mode=memory" in name or name.startswith("file:"):
        return None
    return name


def read(path: str) -> Evidence | None:
    """The evidence beside this database file; None if there is none, or if it is damaged."""
    try:
        descriptor = os.open(path + SUFFIX, os.O_RDONLY)
        try:
            text = os.pread(descriptor, _BYTES, 0)
            # It may have been read in the middle of a write.
            while text != (again := os.pread(descriptor, _BYTES, 0)):
                text = again
        finally:
            os.close(descriptor)
        return Evidence(**json.loads(text))
    except (OSError, ValueError, TypeError):
        return None


def write(path: str, epoch: str, seq: int) -> bool:
    """Write how far the log is. False if the folder cannot be written to."""
    text = json.dumps(asdict(Evidence(epoch, seq, identity(path)))).encode().ljust(_BYTES)
    try:
        descriptor = os.open(path + SUFFIX, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            os.pwrite(descriptor, text, 0)
        finally:
            os.close(descriptor)
    except OSError:
        return False
    return True


def identity(path: str) -> str:
    """Device and inode number of the file; empty if it does not exist."""
    try:
        status = os.stat(path)
    except OSError:
        return ""
    return f"{status.st_dev}:{status.st_ino}"
