"""One round with one server: messages and rows to all of its sockets, one after the other.

The frames that came are compared with what was sent. Prints nothing.
"""

from __future__ import annotations

import argparse
import time

from benchmarks.contestants import RunningServer
from benchmarks.programs import Failed, Load

_SILENCE = 20.0


def text_of(number: int, size: int) -> str:
    """A text of `size` characters that begins with its number."""
    return f"#{number:010}#".ljust(size, "x")


class Round:
    """The messages of one round. Of `arguments` it reads `seconds`, the most for messages of one
    kind, and `bytes`, the size of a message."""

    def __init__(self, running: RunningServer, load: Load, arguments: argparse.Namespace) -> None:
        self._running = running
        self._load = load
        self._arguments = arguments
        self._number = 0
        self._heard_at = time.monotonic()

    def _until(self, seconds: float, messages: int) -> range:
        if self._running.heartbeat and time.monotonic() - self._heard_at > _SILENCE:
            self._load.beat(1.0, self._running.heartbeat)
            self._heard_at = time.monotonic()
        # A slow server gets fewer messages, so that a round ends in time.
        self._ends = time.monotonic() + seconds
        return range(messages)

    def _next(self, size: int) -> str:
        self._number += 1
        return text_of(self._number, size)

    def texts(self, count: int) -> list[str]:
        """The titles of the next rows."""
        return [self._next(12) for _ in range(count)]

    def row(self) -> str:
        """Write one row for all sockets. Returns a frame of it."""
        assert self._running.write
        self._load.expect()
        self._running.write(self.texts(1))
        return self._load.arrive().text

    def _check(self, frame: str, text: str) -> None:
        if self._running.text_in(frame) != text:
            raise Failed(f"it sent {frame!r} for {text!r}")

    def broadcasts(self, messages: int) -> list[tuple[float, float]]:
        """Seconds from sending to the last socket, and from the first socket to the last."""
        took = []
        for _ in self._until(self._arguments.seconds, messages):
            text = self._next(self._arguments.bytes - self._envelope)
            arrival = self._load.fire(self._running.message(text))
            self._check(arrival.text, text)
            took.append((arrival.last - arrival.sent, arrival.last - arrival.first))
            if time.monotonic() > self._ends:
                break
        return took

    @property
    def _envelope(self) -> int:
        # Rowcast's frames have more around the text, which is shorter therefore: frames of all
        # servers have the same size.
        return 120 if self._running.write else 0

    def rows(self, transactions: int, size: int) -> list[tuple[float, float]]:
        """The same times for committed rows, `size` of them in a transaction."""
        assert self._running.write
        took = []
        for _ in self._until(self._arguments.seconds, transactions):
            texts = self.texts(size)
            self._load.expect(size)
            sent = time.monotonic()
            self._running.write(texts)
            arrival = self._load.arrive(size)
            self._check(arrival.text, texts[-1])
            took.append((arrival.last - sent, arrival.last - arrival.first))
            if time.monotonic() > self._ends:
                break
        return took
