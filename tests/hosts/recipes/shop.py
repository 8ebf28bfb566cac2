"""The e-mail of the page."""

from __future__ import annotations

from django.core import mail
from running import HandlerTests
from shop.models import Order


class Mail(HandlerTests):
    names = ("shipping-mail",)

    def test_one_mail_is_sent_when_the_status_becomes_shipped(self) -> None:
        order = Order.objects.create(email="ada@example.com")
        Order.objects.create(email="bob@example.com", status="shipped")
        Order.objects.filter(pk=order.pk).update(status="paid")
        Order.objects.filter(pk=order.pk).update(status="shipped")
        # No change of the status.
        Order.objects.filter(pk=order.pk).update(email="ada@example.org")
        self.handled()
        (sent,) = mail.outbox
        assert sent.to == ["ada@example.com"] and f"Order {order.pk} " in sent.subject
        assert sent.extra_headers["Message-ID"].endswith("@shop.example>")
