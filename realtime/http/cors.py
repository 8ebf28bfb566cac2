"""CORS headers of answers that any origin may read, because no cookie is used for them."""

from __future__ import annotations

import re
from typing import TypeVar

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.cache import patch_vary_headers

R = TypeVar("R", bound=HttpResponseBase)

_HEADERS = ("apikey", "authorization", "content-type", "x-client-info")
# A preflight may name further headers, of tracing or of a custom `fetch`. They are allowed if they
# are valid names and not too many.
_MOST_ASKED = 50
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")


def allow_any_origin(request: HttpRequest, response: R) -> R:
    """The response, readable from any origin."""
    response["Access-Control-Allow-Origin"] = "*"
    response["Access-Control-Allow-Methods"] = "POST, OPTIONS"
    response["Access-Control-Max-Age"] = "86400"
    asked = request.headers.get("Access-Control-Request-Headers", "")
    response["Access-Control-Allow-Headers"] = ", ".join(_allowed(asked))
    patch_vary_headers(response, ["Access-Control-Request-Headers"])
    return response


def _allowed(asked: str) -> list[str]:
    names = [name.strip().lower() for name in asked.split(",", _MOST_ASKED)[:_MOST_ASKED]]
    further = [name for name in names if _NAME.fullmatch(name)]
    return list(dict.fromkeys((*_HEADERS, *further)))
