"""A good client beside the load: one socket that beats ten times a second and times the answers."""

from __future__ import annotations

import threading
import time
from types import TracebackType

from websockets.sync.client import connect

from benchmarks.programs import Endpoint, Failed

_SECONDS = 0.1
_PATIENCE = 60.0


class Pulse:
    """Beats in a thread while the block runs, and is connected before the block begins."""

    def __init__(self, endpoint: Endpoint, heartbeat: str) -> None:
        self._url = f"ws://127.0.0.1:{endpoint.port}{endpoint.path}"
        self._heartbeat = heartbeat
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._connected = threading.Event()
        self._took: list[float] = []
        self._error: Exception | None = None

    def __enter__(self) -> Pulse:
        self._thread.start()
        self._connected.wait(_PATIENCE)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join(_PATIENCE)

    def _run(self) -> None:
        try:
            with connect(self._url, open_timeout=_PATIENCE) as socket:
                self._connected.set()
                due = time.monotonic()
                while not self._ended.wait(max(0.0, due - time.monotonic())):
                    began = time.monotonic()
                    socket.send(self._heartbeat)
                    socket.recv(_PATIENCE)
                    self._took.append(time.monotonic() - began)
                    # After an answer that was late, the next beat is at once.
                    due = max(due + _SECONDS, time.monotonic())
        except Exception as error:
            self._error = error

    def milliseconds(self) -> tuple[float, float]:
        """The 99th percentile of the answers' times, and the longest. Raises Failed if the socket
        failed or had no answer."""
        if self._error is not None or not self._took:
            raise Failed(f"a heartbeat beside the load: {self._error or 'no answer'}")
        took = sorted(self._took)
        return 1_000 * took[len(took) * 99 // 100], 1_000 * took[-1]
