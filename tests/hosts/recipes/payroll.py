"""The audit table of the page."""

from __future__ import annotations

from payroll.models import AuditEntry, Salary
from running import HandlerTests

import realtime


class Audit(HandlerTests):
    names = ("salary-audit",)

    def test_each_change_has_one_row_with_its_writer_and_what_changed(self) -> None:
        with realtime.actor("ada"):
            salary = Salary.objects.create(person="Bob", amount="1000.00")
        Salary.objects.filter(pk=salary.pk).update(amount="1100.00")
        Salary.objects.all().delete()
        self.handled()
        made, raised, gone = AuditEntry.objects.filter(key=str(salary.pk)).order_by("seq")
        assert (made.action, raised.action, gone.action) == ("INSERT", "UPDATE", "DELETE")
        assert (made.actor, raised.actor) == ("ada", None)
        assert raised.values == {"amount": ["1000.00", "1100.00"]}
        assert gone.values["person"] == ["Bob", None]
