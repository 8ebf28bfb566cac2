"""The policy form in a real browser: a policy is tried in place, and nothing is saved by it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from demo.seed import ADMIN, PASSWORD
from tests.acceptance.support.demo_server import DemoServer
from tests.acceptance.support.devtools import Browser, Page

pytestmark = pytest.mark.acceptance

PANEL = "document.querySelector('#auth-rls-test-panel')"


@pytest.fixture
def page(demo: DemoServer, browser: Browser) -> Iterator[Page]:
    page = browser.new_page()
    page.go(f"{demo.url}/admin/login/")
    for name, value in (("username", ADMIN), ("password", PASSWORD)):
        page.run(f"document.querySelector('#id_{name}').value = {json.dumps(value)}")
    page.run("document.querySelector('#login-form').submit()")
    page.wait("location.pathname == '/admin/' && document.readyState == 'complete'")
    page.go(f"{demo.url}/admin/auth_rls/policy/?q=public+ones")
    page.run("document.querySelector('#result_list tbody th a').click()")
    page.wait("document.querySelector('#auth-rls-test-button')")
    page.wait("document.readyState == 'complete'")
    yield page
    page.close()


def pick(page: Page, field: str, typed: str, found: str) -> None:
    """Opens the list of `field`, types into its search, and takes what is marked by Enter."""
    page.run(f"void django.jQuery('{field}').select2('open')")
    page.wait("document.querySelector('.select2-search__field')")
    page.run("document.querySelector('.select2-search__field').focus()")
    page.call("Input.insertText", text=typed)
    page.wait(
        "document.querySelector('.select2-results__option--highlighted')?.textContent"
        f".includes({json.dumps(found)})"
    )
    press_enter(page)
    page.wait("!document.querySelector('.select2-search__field')")


def press_enter(page: Page) -> None:
    for kind in ("keyDown", "keyUp"):
        page.call(
            "Input.dispatchKeyEvent",
            type=kind,
            key="Enter",
            code="Enter",
            text="\r",
            windowsVirtualKeyCode=13,
        )


def enter(page: Page, field: str, text: str) -> None:
    page.run(f"document.querySelector('{field}').value = {json.dumps(text)}")


def test_a_policy_is_tried_in_its_form_and_not_saved(page: Page) -> None:
    stored = page.run("document.querySelector('#id_using').value")
    enter(page, "#id_using", "true")
    pick(page, "#auth-rls-test_user", "lindq", "ben")
    page.run("document.querySelector('#auth-rls-test-button').click()")
    page.wait(f"{PANEL}.querySelector('.auth-rls-counts')")
    assert "As ben" in page.run(f"{PANEL}.textContent")
    # The rows that the edit adds come first.
    assert page.run(f"{PANEL}.querySelector('h4').textContent").strip().startswith("New")
    assert page.run("document.querySelector('#id_using').value") == "true"
    # What is wrong is said in the same place.
    enter(page, "#id_using", "{")
    page.run("document.querySelector('#auth-rls-test-button').click()")
    page.wait(f"{PANEL}.querySelector('.errornote')")
    assert "This is not JSON" in page.run(f"{PANEL}.textContent")
    page.run("location.reload()")
    page.wait(f"document.querySelector('#id_using').value == {json.dumps(stored)}")


def test_picking_a_user_by_enter_does_not_save(page: Page) -> None:
    here = page.run("location.href")
    pick(page, "#auth-rls-test_user", "ben", "ben")
    assert page.run("document.querySelector('#auth-rls-test_user').value") == "ben"
    assert page.run("location.href") == here


def test_columns_appear_as_soon_as_a_permission_is_picked(page: Page) -> None:
    shown = "document.querySelector('#auth-rls-columns').textContent"
    assert "demo.Message" in page.run(shown)
    pick(page, "#id_permission", "demo view task", "Can view task")
    page.wait(f"{shown}.includes('Columns of demo.Task') && {shown}.includes('assignee_id')")


def test_a_session_that_has_ended_is_said_in_words(page: Page) -> None:
    page.call("Network.deleteCookies", name="sessionid", url=page.run("location.origin"))
    page.run("document.querySelector('#auth-rls-test-button').click()")
    page.wait(f"{PANEL}.textContent.includes('You are signed out')")
    shown = "document.querySelector('#auth-rls-columns')"
    page.run("void django.jQuery('#id_permission').trigger('change')")
    page.wait(f"{shown}.textContent.includes('You are signed out')")
    assert page.run(f"{shown}.querySelector('form')") is None


def test_a_row_is_picked_for_the_permission_that_is_picked(page: Page) -> None:
    page.run("document.querySelector('.object-tools a[href*=explain]').click()")
    page.wait("location.pathname.endsWith('/explain/') && document.readyState == 'complete'")
    pick(page, "#id_user", "ben", "ben")
    pick(page, "#id_permission", "view_task", "demo.view_task")
    pick(page, "#id_pk", "quartet", "Book the string quartet")
    page.run("document.querySelector('.submit-row input').click()")
    page.wait("document.querySelector('#auth-rls-verdict')")
    assert page.run("document.querySelector('.auth-rls-doors').textContent").count("denied") == 4
