"""What a project calls from its own Python code."""

from __future__ import annotations

from django.db import connections

from realtime import conf
from realtime.wal import sequencer


def head() -> int:
    """The sequence number of the last event in the log; 0 for an empty log. One query.

    What was committed a moment ago may not be numbered yet.
    """
    return sequencer.read_head(connections[conf.current().DATABASE]).seq
