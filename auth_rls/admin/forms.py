"""The policy form, which reads JSON strictly and shows it again as it was typed.

Owns the text area and its parsing. `Policy.clean` checks the meaning of the JSON.
"""

from __future__ import annotations

import json
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.db import models
from django.forms.fields import InvalidJSONInput
from django.utils.translation import gettext_lazy as _

from auth_rls.access.snapshot import permission_name
from auth_rls.admin.reader import Reader
from auth_rls.models import Policy
from auth_rls.policy.definition import PolicyProblem, target, understand
from auth_rls.sql.primary import primary

# JSON up to this length is shown on one line.
_LINE = 60


class PredicateTextarea(forms.Textarea):
    """A text area for code: fixed pitch, as high as its text, without spell checking."""

    def __init__(self, attrs: dict[str, Any] | None = None) -> None:
        own = {
            "class": "vLargeTextField auth-rls-json",
            "rows": 4,
            "cols": 80,
            "spellcheck": "false",
            "autocapitalize": "off",
            "autocomplete": "off",
        }
        super().__init__({**own, **(attrs or {})})

    def get_context(self, name: str, value: Any, attrs: dict[str, Any] | None) -> dict[str, Any]:
        context = super().get_context(name, value, attrs)
        lines = (context["widget"]["value"] or "").count("\n") + 1
        context["widget"]["attrs"]["rows"] = min(max(lines + 1, 4), 30)
        return context


class PredicateField(forms.JSONField):
    """JSON without ambiguities.

    A repeated key, of which Python would silently keep one, and NaN, which is no JSON, are refused.
    If the form has errors, the text is shown again exactly as typed.
    """

    widget = PredicateTextarea
    default_error_messages = {"invalid": _("This is not JSON.")}

    def to_python(self, value: Any) -> Any:
        if self.disabled or value in self.empty_values or not isinstance(value, str):
            return super().to_python(value)
        if not value.strip():
            return None
        try:
            return json.loads(value, object_pairs_hook=_unique, parse_constant=_no_constant)
        except json.JSONDecodeError as error:
            reason = f"line {error.lineno}, column {error.colno}: {error.msg}"
        except RecursionError:
            reason = "it is nested too deeply"
        except ValueError as error:
            reason = str(error)
        raise ValidationError(
            _("This is not JSON (%(reason)s)."), code="invalid", params={"reason": reason}
        )

    def bound_data(self, data: Any, initial: Any) -> Any:
        if self.disabled:
            return initial
        return None if data is None else InvalidJSONInput(data)

    def prepare_value(self, value: Any) -> Any:
        if value is None or isinstance(value, InvalidJSONInput):
            return value
        line = json.dumps(value, ensure_ascii=False)
        return line if len(line) <= _LINE else json.dumps(value, ensure_ascii=False, indent=2)

    def has_changed(self, initial: Any, data: Any) -> bool:
        try:
            read = self.to_python(data)
        except ValidationError:
            return True
        # As JSON, because Python takes 1 and True for equal.
        return json.dumps(initial, sort_keys=True) != json.dumps(read, sort_keys=True)


class PolicyForm(forms.ModelForm):
    """The form of one policy. `reader` is the user who fills it in, who must have the permission
    and may view what the policy reads. Without a reader this is not checked."""

    reader: Reader | None = None

    def clean(self) -> Any:
        cleaned = super().clean()
        if self.reader is not None:
            self._check_rights(self.reader)
        return cleaned

    def _check_rights(self, reader: Reader) -> None:
        stored = Policy.objects.using(primary(Policy)).filter(pk=self.instance.pk).first()
        if stored is not None and not reader.may_decide(stored):
            self.add_error(None, _("You may not change policies on the rows of this one."))
        if self.cleaned_data.get("permission") is None:
            return
        names = ("name", "permission", "audience", "mode", "using", "with_check")
        edited = Policy(**{name: self.cleaned_data.get(name) for name in names})
        try:
            model, action = target(edited.definition())
        except PolicyProblem:
            return  # `Policy.clean` reports the error.
        if not reader.holds(model, action):
            self.add_error("permission", _refusal(model, action))
            return
        try:
            understood = understand(edited.definition())
        except PolicyProblem:
            return
        for objection in reader.objections([understood]):
            self.add_error("using" if self.cleaned_data.get("using") else "with_check", objection)

    def add_error(self, field: str | None, error: Any) -> None:
        # For the model a field that could not be read is empty, which is a second error on it. Only
        # the first one is shown.
        if field is None and hasattr(error, "error_dict"):
            fresh = {
                name: errors
                for name, errors in error.error_dict.items()
                if name not in self.errors or name not in self.fields
            }
            if not fresh:
                return
            error = ValidationError(fresh)
        super().add_error(field, error)


def _refusal(model: type[models.Model], action: str) -> str:
    words = {"permission": permission_name(model, action), "rows": model._meta.verbose_name_plural}
    if action == "view":
        text = _(
            "Policies on %(permission)s are changed by those who hold it. These are %(rows)s, and "
            "you may not view them."
        )
    else:
        text = _("Policies on %(permission)s are changed by those who hold it, and you do not.")
    return str(text % words)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f'the key "{key}" stands twice in one object')
        found[key] = value
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON value")
