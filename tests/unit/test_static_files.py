"""The files for browsers pass through what projects do to static files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.contrib.staticfiles.storage import ManifestStaticFilesStorage
from django.core.management import call_command
from django.test import override_settings


class HashedModules(ManifestStaticFilesStorage):
    """Hashes what modules import, too: no two of them may import each other, in comments either."""

    support_js_module_import_aggregation = True


@pytest.mark.parametrize("storage", [ManifestStaticFilesStorage, HashedModules])
@pytest.mark.parametrize("url", ["/static/", "https://cdn.example/assets/"])
def test_they_can_be_collected_and_hashed(tmp_path: Path, storage: Any, url: str) -> None:
    backend = f"{storage.__module__}.{storage.__qualname__}"
    storages = {**settings.STORAGES, "staticfiles": {"BACKEND": backend}}
    with override_settings(STATIC_ROOT=tmp_path, STATIC_URL=url, STORAGES=storages):
        call_command("collectstatic", interactive=False, verbosity=0)
    paths = json.loads((tmp_path / "staticfiles.json").read_text())["paths"]
    for name in ("realtime/client.js", "realtime/channel.js", "demo/app.js"):
        assert (tmp_path / paths[name]).is_file()
    if storage is HashedModules:
        assert paths["realtime/channel.js"] in (tmp_path / paths["realtime/client.js"]).read_text(
            "utf-8"
        ).replace("./", "realtime/")
