"""What a subject is shown of rows as they were: published columns alone, of images that the
policies of today let it see, and nothing of a row that is hidden from it today."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db import models

from auth_rls.access.authority import row_predicate
from auth_rls.access.querysets import visible
from auth_rls.predicates.evaluate import matcher
from auth_rls.predicates.predicate import TRUE
from auth_rls.subjects.resolve import subject_of
from auth_rls.subjects.subject import Subject
from realtime.event_log.event import RowImage
from realtime.wal import published
from realtime.wal.actor import shown_actor

# Primary keys in one query.
_KEYS = 500


class Sight:
    """What one subject sees of one published model. Policies and the sets they select are read
    once. With `actors` it is told who wrote. Raises LookupError for a model that is not published,
    CannotCapture for one that cannot be."""

    def __init__(
        self, subject: Any, model: type[models.Model], alias: str, *, actors: bool = False
    ) -> None:
        self._actors = actors
        self.model = model
        self.subject = Subject.service() if subject is None else subject_of(subject)
        self.columns = tuple(column.name for column in published.shape_of(model))
        self._alias = alias
        self.everything = self.subject is not None and self.subject.bypasses_rls
        if self.subject is None:
            self._matches = None
        else:
            predicate = row_predicate(self.subject, model)
            self.everything = self.everything or predicate == TRUE
            self._matches = matcher(predicate)

    def image(self, row: RowImage | None) -> bool:
        """Whether the subject sees the row as this image has it. In doubt it does not."""
        if row is None or self._matches is None:
            return False
        return self._matches(row) is True

    def actor(self, name: str | None) -> str | None:
        """The writer, as far as the subject is told of it."""
        if self.subject is None:
            return None
        return name if self._actors else shown_actor(name, self.subject)

    def rows(self) -> models.QuerySet[Any]:
        """The rows that the subject sees today."""
        rows = self._all()
        if self.everything:
            return rows
        return rows.none() if self.subject is None else visible(rows, self.subject)

    def exists(self, key: Any) -> bool:
        """Whether there is a row with this primary key today."""
        return self._all().filter(pk=key).exists()

    def hides(self, key: Any) -> bool:
        """Whether the row with this primary key exists today and is hidden from the subject."""
        return bool(self.hidden([key]))

    def hidden(self, keys: Sequence[Any]) -> set[Any]:
        """Those of the primary keys whose rows exist today and are hidden from the subject."""
        found: set[Any] = set()
        if self.everything:
            return found
        for start in range(0, len(keys), _KEYS):
            some = {"pk__in": keys[start : start + _KEYS]}
            found.update(self._all().filter(**some).values_list("pk", flat=True))
            found.difference_update(self.rows().filter(**some).values_list("pk", flat=True))
        return found

    def _all(self) -> models.QuerySet[Any]:
        return models.QuerySet(self.model, using=self._alias)
