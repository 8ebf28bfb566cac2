"""One server's turn: messages and rows to all of its sockets, one after the other.

What was sent is compared with what came. Knows no contestant by name and prints nothing.
"""

from __future__ import annotations

import argparse
import time

from benchmarks.contestants import Stand
from benchmarks.programs import Failed, Load

_SILENCE = 20.0


def text_of(number: int, size: int) -> str:
    """A message that carries its number, padded to the size of the whole."""
    return f"#{number:010}#".ljust(size, "x")


class Round:
    """Of `arguments` it reads `seconds`, at most so many for messages of a kind, and `bytes`."""

    def __init__(self, stand: Stand, load: Load, arguments: argparse.Namespace) -> None:
        self._stand = stand
        self._load = load
        self._arguments = arguments
        self._number = 0
        self._heard_at = time.monotonic()

    def _until(self, seconds: float, messages: int) -> range:
        if self._stand.heartbeat and time.monotonic() - self._heard_at > _SILENCE:
            self._load.beat(1.0, self._stand.heartbeat)
            self._heard_at = time.monotonic()
        # Who is slow has fewer messages, so that nobody takes all evening.
        self._ends = time.monotonic() + seconds
        return range(messages)

    def _next(self, size: int) -> str:
        self._number += 1
        return text_of(self._number, size)

    def texts(self, count: int) -> list[str]:
        """Titles of rows that will come next."""
        return [self._next(12) for _ in range(count)]

    def row(self) -> str:
        """One row to everybody; the frame that came."""
        assert self._stand.write
        self._load.expect()
        self._stand.write(self.texts(1))
        return self._load.arrive().text

    def _check(self, frame: str, text: str) -> None:
        if self._stand.told(frame) != text:
            raise Failed(f"it sent {frame!r} for {text!r}")

    def broadcasts(self, messages: int) -> list[tuple[float, float]]:
        """Seconds from sending to the last socket, and from the first socket to the last."""
        took = []
        for _ in self._until(self._arguments.seconds, messages):
            text = self._next(self._arguments.bytes - self._envelope)
            arrival = self._load.fire(self._stand.message(text))
            self._check(arrival.text, text)
            took.append((arrival.last - arrival.sent, arrival.last - arrival.first))
            if time.monotonic() > self._ends:
                break
        return took

    @property
    def _envelope(self) -> int:
        # Ours wraps the text, so it is made shorter: what counts is what goes over the wire.
        return 120 if self._stand.write else 0

    def rows(self, transactions: int, size: int) -> list[tuple[float, float]]:
        """The same for committed rows, so many to a transaction."""
        assert self._stand.write
        took = []
        for _ in self._until(self._arguments.seconds, transactions):
            texts = self.texts(size)
            self._load.expect(size)
            sent = time.monotonic()
            self._stand.write(texts)
            arrival = self._load.arrive(size)
            self._check(arrival.text, texts[-1])
            took.append((arrival.last - sent, arrival.last - arrival.first))
            if time.monotonic() > self._ends:
                break
        return took
