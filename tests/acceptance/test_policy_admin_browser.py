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


def enter(page: Page, field: str, text: str) -> None:
    page.run(f"document.querySelector('{field}').value = {json.dumps(text)}")


def test_a_policy_is_tried_in_its_form_and_not_saved(page: Page) -> None:
    stored = page.run("document.querySelector('#id_using').value")
    enter(page, "#id_using", "true")
    enter(page, "#auth-rls-test-user", "ben")
    page.run("document.querySelector('#auth-rls-test-button').click()")
    page.wait(f"{PANEL}.querySelector('.auth-rls-counts')")
    assert page.run(f"{PANEL}.querySelectorAll('.auth-rls-tag').length") > 0
    assert page.run("document.querySelector('#id_using').value") == "true"
    # What is wrong is said in the same place.
    enter(page, "#id_using", "{")
    page.run("document.querySelector('#auth-rls-test-button').click()")
    page.wait(f"{PANEL}.querySelector('.errornote')")
    assert "This is not JSON" in page.run(f"{PANEL}.textContent")
    page.run("location.reload()")
    page.wait(f"document.querySelector('#id_using').value == {json.dumps(stored)}")


def test_enter_in_the_users_field_tries_and_does_not_save(page: Page) -> None:
    here = page.run("location.href")
    page.run("document.querySelector('#auth-rls-test-user').focus()")
    for kind in ("keyDown", "keyUp"):
        page.call("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", text="\r")
    page.wait(f"{PANEL}.querySelector('.auth-rls-counts')")
    assert page.run("location.href") == here
    assert "an anonymous visitor" in page.run(f"{PANEL}.textContent")
