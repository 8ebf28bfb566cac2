"""Handlers: Python code that runs on every committed change, exactly once in the database.

`declare` has the decorator, `definition` what it makes, `registry` what is known. A `Runner` of
each process that runs handlers takes them by leases (`cursors`) and gives each a thread of its own
(`in_order`, `by_key`), which reads the log (`log_feed`), keeps what concerns its handler
(`matching`) and runs the handler's function in a transaction that moves its cursor (`unit_handler`,
`attempt`). `operations` has what people do to handlers, `overview` how they stand.
"""
