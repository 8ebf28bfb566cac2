"""The PyPI package `realtime` in our place is refused, and elsewhere it is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from realtime.util import namesake


def installed(folder: Path, initial: str) -> Path:
    """A folder of packages with that client's metadata, and `initial` as realtime/__init__.py."""
    package = folder / "realtime"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(initial)
    info = folder / "realtime-2.31.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: realtime\nVersion: 2.31.0\n")
    (info / "RECORD").write_text("realtime/__init__.py,,\nrealtime/_async/__init__.py,,\n")
    return package


@pytest.mark.parametrize("initial", ["from .client import *", '"""Rowcast: committed rows"""'])
def test_files_of_that_package_in_our_place_are_refused_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, initial: str
) -> None:
    package = installed(tmp_path, initial)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ImproperlyConfigured, match="pip uninstall realtime"):
        namesake.refuse(package)


def test_that_package_elsewhere_is_none_of_our_business(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(tmp_path, "from .client import *")
    monkeypatch.syspath_prepend(str(tmp_path))
    namesake.refuse()


def test_an_overwritten_package_is_noticed_without_metadata_too(tmp_path: Path) -> None:
    package: Any = installed(tmp_path, "__version__ = '2'")
    with pytest.raises(ImproperlyConfigured):
        namesake.refuse(package)
