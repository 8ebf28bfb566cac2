from __future__ import annotations

from typing import Any


class Archive:
    def db_for_read(self, model: Any, **hints: Any) -> str | None:
        return "archive" if model._meta.model_name == "oldticket" else None

    db_for_write = db_for_read

    def allow_migrate(self, db: str, app_label: str, model_name: str = "", **hints: Any) -> bool:
        return (db == "archive") == (model_name == "oldticket")
