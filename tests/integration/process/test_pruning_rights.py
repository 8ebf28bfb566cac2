"""Pruning by a role that does not own the log."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.db import connection

from realtime.event_log import sequencer
from realtime.models import WalEntry, WalNumber
from realtime.ops import status
from realtime.process import pruning
from realtime.process.partition_upkeep import PartitionUpkeep
from realtime.wal.postgresql.partitions import PostgresqlPartitions
from tests.support.partitions import small_partitions
from tests.support.postgresql_tables import sql
from tests.support.row_security import CLERK
from tests.support.vendors import on_postgresql

pytestmark = [on_postgresql, pytest.mark.usefixtures("wal")]
MANY = (
    "INSERT INTO zoo_note (title, body, is_public) SELECT 'n', '', false"
    " FROM generate_series(1, 50)"
)


@pytest.fixture
def partitions(wal: None) -> Iterator[PostgresqlPartitions]:
    with small_partitions() as found:
        sql(f"DROP ROLE IF EXISTS {CLERK}")
        sql(f"CREATE ROLE {CLERK}")
        sql(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {CLERK}")
        sql(f"GRANT USAGE, SELECT, UPDATE ON ALL SEQUENCES IN SCHEMA public TO {CLERK}")
        sql(f"REVOKE ALL ON realtime_wal_first, realtime_wal_default FROM {CLERK}")
        yield found
        sql("RESET ROLE")
        sql(f"DROP OWNED BY {CLERK} CASCADE")
        sql(f"DROP ROLE {CLERK}")


def test_a_role_with_rights_on_the_log_alone_prunes_it_by_ranges(
    partitions: PostgresqlPartitions, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(10):
        sql(MANY)
        partitions.make_missing()
    sql(f"SET ROLE {CLERK}")
    while sequencer.number(connection):
        pass
    WalNumber.objects.filter(seq__lte=350).update(commit_us=1)
    PartitionUpkeep("default").look()
    *_, last = pruning.steps("default", whole_partitions=True)
    assert last.entries == 350
    assert WalEntry.objects.count() == 150
    assert [record.action for record in caplog.records if record.name == "realtime.upkeep"] == [
        "partition_failed"
    ]
    assert f"{CLERK} does not own realtime_wal" in caplog.text
    assert status.read("default").stored.entries == 150
    assert partitions.strays(10) == 0
