"""Tasks that write, in the forked processes of a Celery worker, beside the ASGI server."""

from __future__ import annotations

from pathlib import Path

from base_settings import *  # noqa: F403

QUEUE = Path(__file__).resolve().parent / "queue"
CELERY_BROKER_URL = "filesystem://"
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "data_folder_in": str(QUEUE / "tasks"),
    "data_folder_out": str(QUEUE / "tasks"),
    "control_folder": str(QUEUE / "control"),
}
CELERY_RESULT_BACKEND = f"file://{QUEUE / 'results'}"
# A process that has done two tasks is replaced by another, forked from the same parent.
CELERY_WORKER_MAX_TASKS_PER_CHILD = 2
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
