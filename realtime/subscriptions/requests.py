"""What each channel of a process asked for, by channel and by user.

Pure bookkeeping on the event loop: it plans nothing and asks nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from realtime.subscriptions.request import Request

Member = TypeVar("Member")


class Requests(Generic[Member]):
    """Requests by whoever made them."""

    def __init__(self) -> None:
        self._known: dict[Member, Request] = {}
        # By the user's key as text.
        self._of_user: dict[str, dict[Member, None]] = {}

    def __contains__(self, member: object) -> bool:
        return member in self._known

    def __iter__(self) -> Iterator[Member]:
        return iter(tuple(self._known))

    def __getitem__(self, member: Member) -> Request:
        return self._known[member]

    def __setitem__(self, member: Member, request: Request) -> None:
        self.discard(member)
        self._known[member] = request
        if request.subject.user_id is not None:
            self._of_user.setdefault(str(request.subject.user_id), {})[member] = None

    def get(self, member: Member) -> Request | None:
        return self._known.get(member)

    def discard(self, member: Member) -> None:
        """Forget what it asked for, if it did."""
        request = self._known.pop(member, None)
        if request is None or request.subject.user_id is None:
            return
        name = str(request.subject.user_id)
        del self._of_user[name][member]
        if not self._of_user[name]:
            del self._of_user[name]

    def of_users(self, names: Iterable[str]) -> Iterator[Member]:
        """Who asked as one of these users."""
        for name in names:
            yield from self._of_user.get(name, ())
