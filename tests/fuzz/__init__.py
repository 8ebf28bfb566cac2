"""Malformed input: whatever comes in, what goes wrong is the one error that the caller expects.

`corpus/` holds one file for each kind of input, an entry a line: a JSON string for a text, `hex:`
for bytes, `#` for a comment. Tests put every entry to the code, and then what Hypothesis makes of
them. An input that once broke something is kept as an entry.

ROWCAST_FUZZ_EXAMPLES=100000 scripts/test tests/fuzz looks for longer.
"""
