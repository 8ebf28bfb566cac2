"""The form of a webhook: tables and events to tick, and lists of names as text."""

from __future__ import annotations

import re
from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from realtime.models import Webhook, every_webhook_event
from realtime.wal import published
from realtime.webhooks.rules import table_named


class NamesField(forms.CharField):
    """A list of names, written with commas or spaces between."""

    def prepare_value(self, value: Any) -> Any:
        return ", ".join(map(str, value)) if isinstance(value, list | tuple) else value

    def to_python(self, value: Any) -> Any:
        return [name for name in re.split(r"[\s,]+", super().to_python(value) or "") if name]

    def has_changed(self, initial: Any, data: Any) -> bool:
        return list(initial or ()) != self.to_python(data)


class WebhookForm(forms.ModelForm):
    tables = forms.MultipleChoiceField(
        label=_("Tables"),
        widget=forms.CheckboxSelectMultiple,
        help_text=_(
            "Published tables. All their rows are sent, whatever policies say: a webhook has the "
            "rights of the service role. Unpublished columns are never sent."
        ),
    )
    events = forms.MultipleChoiceField(
        label=_("Events"),
        widget=forms.CheckboxSelectMultiple,
        choices=[(event, event) for event in Webhook.Event.values],
        initial=every_webhook_event,
        help_text=_("TRUNCATE is a table that was emptied at once; no row comes with it."),
    )
    columns = NamesField(
        label=_("Columns"),
        required=False,
        help_text=_(
            "Send these columns alone, with commas between. The key always comes too. Empty: all "
            "published columns."
        ),
    )

    class Meta:
        model = Webhook
        fields = (
            "name",
            "url",
            "tables",
            "events",
            "filter",
            "columns",
            "headers",
            "secret",
            "enabled",
        )
        widgets = {
            "filter": forms.TextInput(attrs={"class": "vLargeTextField"}),
            "url": forms.TextInput(attrs={"class": "vLargeTextField"}),
            "headers": forms.Textarea(attrs={"rows": 3, "class": "vLargeTextField"}),
            "secret": forms.TextInput(
                attrs={"class": "vLargeTextField", "autocomplete": "off", "spellcheck": "false"}
            ),
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "tables" not in self.fields:
            return  # for those who may only view
        choices = {name_of(entry): _label(entry) for entry in published.published()}
        given = self.instance.tables if isinstance(self.instance.tables, list) else []
        chosen = []
        for name in map(str, given):
            entry = table_named(name)
            chosen.append(name if entry is None else name_of(entry))
            choices.setdefault(chosen[-1], _("%s (not published)") % name)
        tables: Any = self.fields["tables"]
        tables.choices = sorted(choices.items(), key=lambda choice: str(choice[1]))
        self.initial["tables"] = chosen


def name_of(entry: published.Published) -> str:
    """The name by which the form stores a table."""
    other = table_named(entry.table)
    return entry.table if other == entry else f"{entry.schema}.{entry.table}"


def _label(entry: published.Published) -> str:
    return f"{entry.model._meta.label} ({name_of(entry)})"
