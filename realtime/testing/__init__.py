"""The test kit: what a project needs to test its policies and its live pages.

Plain functions, for unittest as for pytest; the fixture `realtime_client` is in `plugin`. Names are
imported on first use: pytest loads the plugin, and so this package, before Django is set up.
"""

from __future__ import annotations

from auth_rls.lazy_names import lazy_names

_EXPORTS = {
    "Broadcast": "realtime.testing.channel",
    "Change": "realtime.subscriptions.change",
    "Refused": "realtime.testing.client",
    "SetupError": "realtime.testing.preconditions",
    "UnreliableLayer": "realtime.testing.unreliable_layer",
    "assert_hidden": "realtime.testing.visibility",
    "assert_visible": "realtime.testing.visibility",
    "captured_changes": "realtime.testing.captured",
    "handled_changes": "realtime.testing.handled",
    "policy_matrix": "realtime.testing.matrix",
    "realtime_server": "realtime.testing.running",
}

__all__ = [
    "Broadcast",
    "Change",
    "Refused",
    "SetupError",
    "UnreliableLayer",
    "assert_hidden",
    "assert_visible",
    "captured_changes",
    "handled_changes",
    "policy_matrix",
    "realtime_server",
]

__getattr__, __dir__ = lazy_names(__name__, _EXPORTS)
