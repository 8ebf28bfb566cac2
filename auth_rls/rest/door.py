"""REST framework as a door for explanations: whether a view would find a row.

Owns a view with `PolicyFilterBackend` and `PolicyPermission` that fetches the object. It runs no
handler and returns no row.
"""

from __future__ import annotations

from django.contrib.auth.models import AnonymousUser
from django.http import Http404, HttpRequest
from rest_framework.exceptions import PermissionDenied
from rest_framework.generics import GenericAPIView

from auth_rls.explain.doors import Question
from auth_rls.policy.definition import ACTIONS
from auth_rls.rest.filters import PolicyFilterBackend
from auth_rls.rest.permissions import PolicyPermission

_METHODS = {"view": "GET", "change": "PATCH", "delete": "DELETE"}


class _View(GenericAPIView):
    """A view of one object, for requests that are authenticated already."""

    authentication_classes = ()
    filter_backends = (PolicyFilterBackend,)
    permission_classes = (PolicyPermission,)


def ask(question: Question) -> bool | str:
    """Whether the view would find the object, or a text that says why the view cannot be tried."""
    if question.action == "add":
        return "an add is judged by what is posted"
    if question.action not in ACTIONS:
        return "it has no rows in a table"
    view = _View(queryset=question.rows)
    view.args, view.kwargs, view.format_kwarg = (), {"pk": question.instance.pk}, None
    request = HttpRequest()
    request.method = _METHODS[question.action]
    view.request = view.initialize_request(request)
    view.request.user = AnonymousUser() if question.user is None else question.user
    # A refused user makes the request as the user, everyone else as the subject of a token.
    view.request.auth = None if question.refused else question.subject
    try:
        view.get_object()
    except Http404:
        if question.action == "view" or question.refused:
            return False
        return "it shows no row that the subject may not view, so there is none to touch"
    except PermissionDenied:
        return False
    return True
