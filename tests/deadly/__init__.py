"""An app of processes under test whose handlers end them: see `tests.acceptance.test_handlers`."""
