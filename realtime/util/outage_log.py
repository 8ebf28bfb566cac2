"""Logs an outage once: one line when something begins to fail, one when it works again.

During an outage the log does not grow, however often the work is tried again.
"""

from __future__ import annotations

import logging


class OutageLog:
    """The state of one thing that may fail. Not for use by several threads.

    `failing` is a message with one "%s" for the error, `works` one without. The actions are the
    `action` of the log records.
    """

    __slots__ = ("_failing", "_failing_action", "_logger", "_works", "_works_action", "problem")

    def __init__(
        self,
        logger: logging.Logger,
        *,
        failing: str,
        failing_action: str,
        works: str,
        works_action: str,
    ) -> None:
        self._logger = logger
        self._failing = failing
        self._failing_action = failing_action
        self._works = works
        self._works_action = works_action
        #: The text of the last error while the outage lasts, else None.
        self.problem: str | None = None

    def failed(self, error: Exception) -> None:
        """Record a failure; the first one in a row is logged."""
        text = str(error) or type(error).__name__
        if self.problem is None:
            self._logger.warning(self._failing, text, extra={"action": self._failing_action})
        self.problem = text

    def worked(self) -> None:
        """Record a success; the first one after a failure is logged."""
        if self.problem is not None:
            self._logger.info(self._works, extra={"action": self._works_action})
            self.problem = None
