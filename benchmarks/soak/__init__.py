"""The long run: a whole deployment under steady writes, checked to the last change, and level.

`__main__` says what runs. `writers` and `readers` do, `ledger` and `table` keep account of what was
written and got, `samples` reads sizes and times of the parts, `level` judges whether they grew, and
`shown` says it all.
"""

from __future__ import annotations
