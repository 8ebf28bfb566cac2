"""A tailer that runs beside the test."""

from __future__ import annotations

import threading
from collections.abc import Callable

from realtime.event_log.batch import Batch
from realtime.event_log.leadership import Role
from realtime.event_log.tailer import Tailer


class RunningTailer:
    """A tailer in a thread, what it published, and the roles it had."""

    def __init__(
        self, publish: Callable[[Batch], None] | None = None, *, follow: bool = True
    ) -> None:
        self.batches: list[Batch] = []
        self.roles: list[Role] = []
        self.tailer = Tailer(
            "default",
            0.005,
            publish or self.batches.append,
            follow=follow,
            on_role=self.roles.append,
        )
        self.thread = threading.Thread(target=self.tailer.run)
        self.thread.start()

    @property
    def seqs(self) -> list[int]:
        return [row.seq for batch in self.batches for row in batch.rows]

    def stop(self) -> None:
        self.tailer.stop()
        self.thread.join(15)
        assert not self.thread.is_alive()
