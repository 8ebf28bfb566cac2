"""The base of a middleware for sync and for async chains of calls.

A subclass is written once, and no chain is adapted to the other by a thread.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.http import HttpRequest
from django.http.response import HttpResponseBase


class SyncAsyncMiddleware:
    """Calls `before`, then the rest of the chain within `around`, then `after`.

    Subclasses override the methods that they need.
    """

    sync_capable = True
    async_capable = True

    def __init__(
        self, get_response: Callable[[HttpRequest], HttpResponseBase | Awaitable[HttpResponseBase]]
    ) -> None:
        self.get_response: Callable[[HttpRequest], Any] = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def before(self, request: HttpRequest) -> HttpResponseBase | None:
        """Prepare the request. If this returns a response, that is the answer, and the rest of the
        chain is not called."""

    def blocks(self, request: HttpRequest) -> bool:
        """Whether `before` may wait for the database or the network for this request. In an async
        chain it is then called in a thread."""
        return False

    def around(self, request: HttpRequest) -> AbstractContextManager[Any]:
        """The context in which the rest of the chain is called."""
        return nullcontext()

    def after(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        """The answer for a response from `before` or from the rest of the chain."""
        return response

    def __call__(self, request: HttpRequest) -> Any:
        if self._is_async:
            return self._answer_async(request)
        response = self.before(request)
        if response is None:
            with self.around(request):
                response = self.get_response(request)
        return self.after(request, response)

    async def _answer_async(self, request: HttpRequest) -> HttpResponseBase:
        if self.blocks(request):
            response = await sync_to_async(self.before, thread_sensitive=True)(request)
        else:
            response = self.before(request)
        if response is None:
            with self.around(request):
                response = await self.get_response(request)
        return self.after(request, response)
