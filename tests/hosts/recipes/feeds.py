"""The outboxes of the page: Redis is a real one."""

from __future__ import annotations

import json
from typing import Any

import confluent_kafka
import nats
from feeds.models import Payment
from feeds.redis_handlers import link
from running import HandlerTests

from realtime.models import Handler


class Outbox(HandlerTests):
    names = ("payments-to-redis", "payments-to-kafka", "payments-to-nats")

    def setUp(self) -> None:
        super().setUp()
        link.delete("payments")
        confluent_kafka.sent.clear()
        nats.sent.clear()

    def write(self) -> Payment:
        paid = Payment.objects.create(amount="12.50")
        Payment.objects.filter(pk=paid.pk).update(amount="13.00")
        Payment.objects.create(amount="1.00").delete()
        return paid

    def in_redis(self) -> list[dict[str, str]]:
        entries: Any = link.xrange("payments")
        return [{k.decode(): v.decode() for k, v in fields.items()} for _, fields in entries]

    def test_redis_gets_the_changes_in_order(self) -> None:
        paid = self.write()
        self.handled()
        entries = self.in_redis()
        assert [entry["type"] for entry in entries] == ["INSERT", "UPDATE", "INSERT", "DELETE"]
        assert len({entry["delivery_id"] for entry in entries}) == 4
        assert json.loads(entries[1]["row"]) == {
            "id": paid.pk,
            "amount": "13.00",
            "currency": "EUR",
        }
        assert json.loads(entries[3]["row"]) is None

    def test_a_repetition_bears_the_same_delivery_ids(self) -> None:
        before = Handler.objects.get(pk="payments-to-redis").seq
        self.write()
        self.handled()
        Handler.objects.filter(pk="payments-to-redis").update(seq=before)
        self.handled()
        ids = [entry["delivery_id"] for entry in self.in_redis()]
        assert len(ids) == 8 and ids[:4] == ids[4:]

    def test_kafka_and_nats_get_the_changes_with_their_ids(self) -> None:
        paid = self.write()
        self.handled()
        assert [message["key"] for message in confluent_kafka.sent][:2] == [str(paid.pk)] * 2
        assert json.loads(confluent_kafka.sent[1]["value"])["amount"] == "13.00"
        ids = {message["headers"]["delivery-id"] for message in confluent_kafka.sent}
        assert len(ids) == 4
        assert [message["headers"]["type"] for message in nats.sent] == [
            "INSERT",
            "UPDATE",
            "INSERT",
            "DELETE",
        ]
        assert len({message["headers"]["Nats-Msg-Id"] for message in nats.sent}) == 4
        assert nats.open_connections == 0

    def test_what_kafka_does_not_take_is_not_passed_over(self) -> None:
        confluent_kafka.down = True
        try:
            self.write()
            self.handled("failing")
        finally:
            confluent_kafka.down = False
        row = Handler.objects.get(pk="payments-to-kafka")
        assert "Kafka did not take the changes" in row.last_error
        self.handled()
        assert len(confluent_kafka.sent) == 4
