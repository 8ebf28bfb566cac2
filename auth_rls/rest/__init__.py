"""Django REST framework under the same policies: `pip install "django-rowcast[drf]"`.

Owns the REST door. No module outside of this package imports REST framework.
"""

from __future__ import annotations

try:
    import rest_framework as _rest_framework  # noqa: F401
except ImportError as error:
    raise ImportError(
        "auth_rls.rest needs Django REST framework, which is not installed: "
        'pip install "django-rowcast[drf]"'
    ) from error

from auth_rls.rest.authentication import SubjectAuthentication
from auth_rls.rest.fields import (
    PolicyHyperlinkedRelatedField,
    PolicyModelSerializer,
    PolicyPrimaryKeyRelatedField,
    PolicySlugRelatedField,
)
from auth_rls.rest.filters import PolicyFilterBackend, PolicyOrderingFilter, PolicySearchFilter
from auth_rls.rest.permissions import PolicyPermission

__all__ = [
    "PolicyFilterBackend",
    "PolicyHyperlinkedRelatedField",
    "PolicyModelSerializer",
    "PolicyOrderingFilter",
    "PolicyPermission",
    "PolicyPrimaryKeyRelatedField",
    "PolicySearchFilter",
    "PolicySlugRelatedField",
    "SubjectAuthentication",
]
