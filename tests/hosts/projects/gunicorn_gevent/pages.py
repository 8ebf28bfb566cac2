from __future__ import annotations

import threading

from desk.models import Ticket
from django.http import HttpRequest, HttpResponse
from django.urls import path
from urls import urlpatterns as usual

import realtime


def rename(request: HttpRequest) -> HttpResponse:
    tickets = Ticket.objects.filter(title=request.GET["old"])
    tickets.update(title=request.GET["new"])
    realtime.broadcast("news", "renamed", {"title": request.GET["new"]})
    # The ORM goes on working in this green thread, and nothing of a broadcast stays behind.
    assert Ticket.objects.filter(title=request.GET["new"]).exists()
    names = [thread.name for thread in threading.enumerate() if "rowcast" in thread.name]
    return HttpResponse(",".join(names) or "none")


urlpatterns = [*usual, path("rename", rename)]
