"""Checks of the built files for scripts/package: they contain what is needed, and nothing else; and
the wheel works in a bare project, of this environment and of each interpreter that is named."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

APPS = ("auth_rls", "realtime")
ROOT = Path(__file__).resolve().parents[1]
CODE = """
import django
from django.conf import settings
settings.configure(
    SECRET_KEY="a-key-of-a-bare-project-that-is-long-enough",
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "auth_rls", "realtime"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
)
django.setup()
from django.core.management import call_command
call_command("migrate", verbosity=0)
import realtime
print(realtime.__file__)
"""


def needed() -> set[str]:
    """The files of the repository that an installation needs."""
    listed = subprocess.run(
        ["git", "ls-files", *APPS], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(listed.stdout.split())


def held(path: Path) -> set[str]:
    if path.suffix == ".whl":
        return set(zipfile.ZipFile(path).namelist())
    with tarfile.open(path) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}


def installed(python: str, wheel: Path) -> None:
    """Install the wheel for `python`, with what it depends on, and use it in a bare project."""
    with tempfile.TemporaryDirectory() as place:
        steps = (
            [python, "-m", "venv", "venv"],
            ["venv/bin/pip", "install", "-q", "--disable-pip-version-check", str(wheel.resolve())],
            ["venv/bin/python", "-W", "error::DeprecationWarning:realtime", "-c", CODE],
        )
        for step in steps:
            done = subprocess.run(step, cwd=place, capture_output=True, text=True)
            if done.returncode:
                said = f"{done.stdout}{done.stderr}"
                sys.exit(f"{wheel.name} does not work with {python}: {step}\n{said}")


def main(folder: Path, pythons: list[str]) -> None:
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    for path in (wheel, sdist):
        if missing := needed() - held(path):
            sys.exit(f"{path.name} lacks {', '.join(sorted(missing))}")
    known = needed()
    strange = {n for n in held(wheel) if n.startswith(APPS) and not n.endswith("/")} - known
    if strange:
        sys.exit(f"{wheel.name} holds what is not in the repository: {', '.join(sorted(strange))}")
    others = {n.split("/")[0] for n in held(wheel)} - set(APPS)
    if any(not name.endswith(".dist-info") for name in others):
        sys.exit(f"{wheel.name} holds {', '.join(sorted(others))}")
    with tempfile.TemporaryDirectory() as place:
        zipfile.ZipFile(wheel).extractall(place)
        done = subprocess.run(
            [sys.executable, "-W", "error::DeprecationWarning:realtime", "-c", CODE],
            cwd=place,
            capture_output=True,
            text=True,
        )
        if done.returncode or place not in done.stdout:
            sys.exit(f"a bare project cannot use {wheel.name}:\n{done.stdout}{done.stderr}")
    for python in pythons:
        installed(python, wheel)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
