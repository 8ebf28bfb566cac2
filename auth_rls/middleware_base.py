"""Where a middleware stands: in a chain of sync calls or of async ones.

Owns that a request is answered in the chain's own way, with no thread between.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest
from django.http.response import HttpResponseBase


class SyncAsyncMiddleware(ABC):
    """A middleware that does in `call` and in `acall` what it does around `get_response`."""

    sync_capable = True
    async_capable = True

    def __init__(
        self, get_response: Callable[[HttpRequest], HttpResponseBase | Awaitable[HttpResponseBase]]
    ) -> None:
        self.get_response: Callable[[HttpRequest], Any] = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        return self.acall(request) if self._is_async else self.call(request)

    @abstractmethod
    def call(self, request: HttpRequest) -> Any:
        """Answer in a chain of sync calls."""

    @abstractmethod
    async def acall(self, request: HttpRequest) -> Any:
        """Answer in a chain of async ones."""
