"""The usual mistakes that the documentation lists are each made by a test, which is there."""

from __future__ import annotations

import re

from tests.support.source import ROOT

MADE = "tests/hosts/test_mistakes.py"

# By mistake, the file and the name of the test that makes it.
TESTS = {
    "`migrate` was forgotten": (
        MADE,
        "test_a_forgotten_migrate_is_told_by_the_commands",
    ),
    "triggers are missing": (
        MADE,
        "test_missing_triggers_are_told_by_check_and_by_the_command",
    ),
    "no `PolicyBackend`": (
        MADE,
        "test_a_mistake_of_the_settings_is_told_by_check",
    ),
    "`daphne` stands behind `staticfiles`": (
        MADE,
        "test_a_mistake_of_the_settings_is_told_by_check",
    ),
    "no `daphne`, or a WSGI server": (
        MADE,
        "test_a_mistake_of_the_settings_is_told_by_check",
    ),
    "no `ASGI_APPLICATION`": (
        MADE,
        "test_a_mistake_of_the_settings_is_told_by_check",
    ),
    "`auth_rls` is not installed": (
        MADE,
        "test_a_mistake_of_the_settings_is_told_by_check",
    ),
    "no policy on a published model": (
        MADE,
        "test_that_no_policy_shows_a_row_is_told_in_the_console_with_debug",
    ),
    "a policy for holders of a permission that nobody holds": (
        MADE,
        "test_a_model_without_a_policy_and_one_for_holders_that_nobody_is_are_told_by_check",
    ),
    "a misspelt table in JavaScript": (
        MADE,
        "test_what_the_server_refuses_of_a_binding_is_told_by_status_and_console",
    ),
    "a misspelt filter, or `live` with one kind of event": (
        MADE,
        "test_what_the_server_refuses_of_a_binding_is_told_by_status_and_console",
    ),
    "no channel layer": (
        MADE,
        "test_the_project_of_the_tutorial_has_no_mistake_and_needs_no_channel_layer",
    ),
    "tokens signed with another key": (
        MADE,
        "test_a_token_of_another_key_is_told_in_the_answer_and_in_the_log",
    ),
    "a wrong API key": (
        MADE,
        "test_a_wrong_api_key_is_told_in_the_answer_to_the_page_and_in_the_log",
    ),
    "a page of another origin": (
        MADE,
        "test_another_origin_is_told_to_the_page_and_in_the_log",
    ),
    "an external tailer, and no `tail_wal`": (
        MADE,
        "test_that_nobody_numbers_is_told_in_the_log_by_the_status_and_in_the_console",
    ),
    "no static files without `DEBUG`": (
        "tests/integration/test_hosting_checks.py",
        "test_a_deployment_that_has_no_static_files_is_warned_of",
    ),
    "a misspelt setting": (
        MADE,
        "test_a_mistake_of_the_settings_is_told_by_check",
    ),
}


def test_every_mistake_that_is_listed_is_made_by_a_test_and_no_other() -> None:
    text = (ROOT / "docs" / "reference" / "checks.md").read_text()
    table = text.split("\n## The usual mistakes\n", 1)[1]
    listed = re.findall(r"^\| (.+?) \| .+ \|$", table, re.MULTILINE)[1:]
    assert [name for name in listed if name.strip("- ")] == list(TESTS)
    for mistake, (path, name) in TESTS.items():
        assert re.search(rf"def {name}\(", (ROOT / path).read_text()), mistake
