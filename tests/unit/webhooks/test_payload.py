"""Bodies of deliveries, in the shape of Supabase's database webhooks."""

from __future__ import annotations

import json
from decimal import Decimal

from realtime.webhooks.payload import MAX_RECORD_BYTES, body_of, narrowed, trial_body

OLD = {"id": 1, "status": "new", "price": Decimal("10.50")}
NEW = {"id": 1, "status": "paid", "price": Decimal("10.50")}


def test_a_change_has_five_members() -> None:
    assert body_of("UPDATE", "public", "shop_order", NEW, OLD) == (
        b'{"type":"UPDATE","table":"shop_order","schema":"public",'
        b'"record":{"id":1,"status":"paid","price":10.50},'
        b'"old_record":{"id":1,"status":"new","price":10.50}}'
    )


def test_what_a_change_does_not_have_is_null() -> None:
    inserted = json.loads(body_of("INSERT", "public", "shop_order", NEW, None))
    assert inserted["old_record"] is None and inserted["record"]["id"] == 1
    deleted = json.loads(body_of("DELETE", "public", "shop_order", None, OLD))
    assert deleted["record"] is None and deleted["old_record"]["id"] == 1
    emptied = json.loads(body_of("TRUNCATE", "public", "shop_order", None, None))
    assert emptied["record"] is None and emptied["old_record"] is None


def test_columns_are_those_that_were_chosen() -> None:
    body = json.loads(body_of("UPDATE", "public", "t", NEW, OLD, {"id", "status", "other"}))
    assert body["record"] == {"id": 1, "status": "paid"}
    assert body["old_record"] == {"id": 1, "status": "new"}


def test_a_record_that_is_too_large_keeps_its_small_values_and_says_so() -> None:
    large = {**NEW, "text": "x" * MAX_RECORD_BYTES}
    body = json.loads(body_of("INSERT", "public", "t", large, None))
    assert body["record"] == {"id": 1, "status": "paid", "price": 10.5}
    assert body["errors"] == ["Error 413: Payload Too Large"]
    assert "errors" not in json.loads(body_of("INSERT", "public", "t", NEW, None))


def test_a_trial_has_no_row() -> None:
    assert json.loads(trial_body("public", "t")) == {
        "type": "TEST",
        "table": "t",
        "schema": "public",
        "record": None,
        "old_record": None,
    }


def test_columns_that_are_not_shown_any_more_are_left_out_digit_for_digit() -> None:
    body = body_of("UPDATE", "public", "shop_order", NEW, OLD)
    asked = []

    def shown(schema: str, table: str) -> set[str]:
        asked.append((schema, table))
        return {"id", "price"}

    found, withheld = narrowed(body, shown)
    assert found == (
        b'{"type":"UPDATE","table":"shop_order","schema":"public",'
        b'"record":{"id":1,"price":10.50},"old_record":{"id":1,"price":10.50}}'
    )
    assert withheld == ["status"] and asked == [("public", "shop_order")]


def test_a_body_all_of_whose_columns_are_shown_stays_the_same_bytes() -> None:
    body = body_of("DELETE", "public", "shop_order", None, OLD)
    assert narrowed(body, lambda schema, table: set(OLD)) == (body, [])
    for none in (trial_body("public", "t"), body_of("TRUNCATE", "public", "t", None, None)):
        assert narrowed(none, lambda schema, table: ()) == (none, [])
