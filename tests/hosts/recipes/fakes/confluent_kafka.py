"""The calls of Kafka's client that a recipe makes, on a list. `down` refuses every message."""

from __future__ import annotations

from typing import Any

sent: list[dict[str, Any]] = []
down = False


class Producer:
    def __init__(self, config: dict[str, Any]) -> None:
        assert config["enable.idempotence"]
        self._reports: list[Any] = []

    def produce(self, topic: str, *, on_delivery: Any, **message: Any) -> None:
        # Reports come by flush or poll, as from the library.
        self._reports.append((on_delivery, {"topic": topic, **message}))

    def flush(self, timeout: float) -> int:
        reports, self._reports = self._reports, []
        for on_delivery, message in reports:
            if not down:
                sent.append(message)
            on_delivery("the broker is down" if down else None, message)
        return 0
