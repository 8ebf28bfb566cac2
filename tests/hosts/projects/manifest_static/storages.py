from __future__ import annotations

from django.contrib.staticfiles.storage import ManifestStaticFilesStorage


class Hashed(ManifestStaticFilesStorage):
    support_js_module_import_aggregation = True
