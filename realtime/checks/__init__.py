"""System checks: whether the project is set up so that changes are captured and sent.

Checks without the database tag read declarations and settings only.
"""

from __future__ import annotations

# Importing the modules registers their checks.
from realtime.checks.databases import check_captured as check_captured
from realtime.checks.databases import check_database_setting as check_database_setting
from realtime.checks.databases import check_deciding_databases as check_deciding_databases
from realtime.checks.databases import check_handlers_go_on as check_handlers_go_on
from realtime.checks.databases import check_policies as check_policies
from realtime.checks.databases import check_triggers as check_triggers
from realtime.checks.declarations import check_handlers as check_handlers
from realtime.checks.declarations import check_published as check_published
from realtime.checks.declarations import check_tenants as check_tenants
from realtime.checks.hosting import check_asgi as check_asgi
from realtime.checks.hosting import check_asgi_module as check_asgi_module
from realtime.checks.hosting import check_collected_files as check_collected_files
from realtime.checks.hosting import check_layer as check_layer
from realtime.checks.hosting import check_receipts as check_receipts
from realtime.checks.hosting import check_settings as check_settings
from realtime.checks.hosting import check_static_files as check_static_files
