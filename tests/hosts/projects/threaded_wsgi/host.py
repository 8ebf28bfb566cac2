from __future__ import annotations

import threading
from socketserver import ThreadingMixIn
from typing import Any
from urllib.request import urlopen
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from commands import Host as Usual
from desk.models import Ticket
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest, HttpResponse
from django.urls import path


class Threaded(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class Quiet(WSGIRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


class Host(Usual):
    """Renames by a page that a thread of the WSGI server answers."""

    def __init__(self) -> None:
        super().__init__()
        import urls

        urls.urlpatterns.append(path("rename", self.page))
        self.server = make_server("127.0.0.1", 0, WSGIHandler(), Threaded, Quiet)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def page(self, request: HttpRequest) -> HttpResponse:
        Ticket.objects.filter(title=request.GET["old"]).update(title=request.GET["new"])
        return HttpResponse(threading.current_thread().name)

    def rename(self, old: str, new: str) -> None:
        with urlopen(
            f"http://127.0.0.1:{self.server.server_port}/rename?old={old}&new={new}"
        ) as page:
            assert b"Thread" in page.read()


host = Host()
