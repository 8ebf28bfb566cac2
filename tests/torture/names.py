"""Names of the handlers, for who runs them and for who checks them."""

from __future__ import annotations

COUNTING, COPYING, FAILING, BATCHED = "counting", "copying", "failing", "batched"
KEYED, AWAITING, POISONED = "keyed", "awaiting", "poisoned"
TORTURED = (COUNTING, COPYING, FAILING, BATCHED, KEYED, AWAITING, POISONED)
# For figures: each of these is measured alone.
FAST, PROMPT = "fast", "prompt"
# Items with this value are those that the poisoned handler never masters.
POISON = 13
