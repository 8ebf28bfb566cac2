"""An app of processes under test that has handlers only: see `tests.acceptance.test_handlers`."""
