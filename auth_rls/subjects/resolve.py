"""The subject that an argument stands for: a subject, a Django user, or a request of either.

Owns reading the three as one subject. Never verifies a token and never decides what a subject may
do. Reading a lazy user or subject may query the database.
"""

from __future__ import annotations

from typing import Any

from auth_rls.subjects.subject import Subject


def subject_of(asker: Any) -> Subject | None:
    """The subject of `asker`, a `Subject`, a Django user or a request. None for an inactive user,
    who may do nothing.

    A request has the subject that `SubjectMiddleware` set, else that of its `user`. Raises
    TypeError for anything else, such as None.
    """
    if isinstance(asker, Subject):
        return asker
    if hasattr(asker, "META"):
        return of_request(asker)
    if not hasattr(asker, "is_authenticated"):
        raise TypeError(
            f"expected a Subject, a Django user or a request, not {type(asker).__name__}"
        )
    if asker.is_authenticated and not getattr(asker, "is_active", False):
        return None
    return Subject.from_user(asker)


def of_request(request: Any) -> Subject | None:
    """As `subject_of`, for a request of Django or of Django REST framework.

    REST framework authenticates a request again, by the classes of the view, and a view that does
    not accept sessions must not use the session's subject. So the middleware's subject only counts
    if both found the same user.
    """
    inner = getattr(request, "_request", None)
    if inner is None:
        found = getattr(request, "subject", None)
        return found if isinstance(found, Subject) else subject_of(_user(request))
    user = _user(request)
    if isinstance(request.auth, Subject):
        return request.auth
    found = getattr(inner, "subject", None)
    if isinstance(found, Subject) and _same(found.user, user):
        return found
    return subject_of(user)


def _user(request: Any) -> Any:
    try:
        return request.user
    except AttributeError:
        raise TypeError(
            "the request has no user: put auth_rls.middleware.SubjectMiddleware, or Django's "
            "AuthenticationMiddleware, into MIDDLEWARE"
        ) from None


def _same(one: Any, other: Any) -> bool:
    if one is None or not getattr(other, "is_authenticated", False):
        return one is None and not getattr(other, "is_authenticated", False)
    return bool(one.pk == other.pk)
