"""Redaction: no credential survives in a log line, and nothing else is touched."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from uvicorn.logging import AccessFormatter, DefaultFormatter

from realtime.redaction import BLOT, SERVER_LOGGERS, RedactCredentials, install, redact

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl-_x"
SECRET = "s3cr3t-V4lue_x.y~z"


class Log:
    """A logger with the filter on it, and what it wrote."""

    def __init__(self) -> None:
        self.stream = io.StringIO()
        self.handler = logging.StreamHandler(self.stream)
        self.logger = logging.Logger("test", logging.DEBUG)
        self.logger.addHandler(self.handler)
        self.logger.addFilter(RedactCredentials())

    @property
    def text(self) -> str:
        return self.stream.getvalue().rstrip("\n")


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("/realtime?token={}", "/realtime?token=#"),
        ("/realtime?apikey={}&vsn=2.0.0", "/realtime?apikey=#&vsn=2.0.0"),
        ("/r?log_level=info&APIKEY={}&x=1", "/r?log_level=info&APIKEY=#&x=1"),
        ("access_token={}; other=1", "access_token=#; other=1"),
        ("/login?next=%2Frealtime%3Ftoken%3D{}", "/login?next=%2Frealtime%3Ftoken%3D#"),
        ("Authorization: Bearer {}", "Authorization: Bearer #"),
        ("authorization: bearer {} (x)", "authorization: bearer # (x)"),
        ("(b'authorization', b'Bearer {}')", "(b'authorization', b'Bearer #')"),
        ("(b'x-api-key', b'{}')", "(b'x-api-key', b'#')"),
        ("X-API-Key: {}", "X-API-Key: #"),
        ('{{"access_token":"{}","a":1}}', '{{"access_token":"#","a":1}}'),
        ('{{"access_token": "{}"}}', '{{"access_token": "#"}}'),
        ("{{'access_token': '{}'}}", "{{'access_token': '#'}}"),
        ('"{{\\"access_token\\":\\"{}\\"}}"', '"{{\\"access_token\\":\\"#\\"}}"'),
        ("cookie: sessionid={}; theme=dark", "cookie: sessionid=#; theme=dark"),
    ],
)
@pytest.mark.parametrize("value", [JWT, SECRET])
def test_a_named_value_is_blotted_out(text: str, clean: str, value: str) -> None:
    assert redact(text.format(value)) == clean.replace("#", BLOT).replace("{{", "{").replace(
        "}}", "}"
    )


@pytest.mark.parametrize("secret", [JWT, "sb_secret_abc-DEF_123"])
def test_a_token_is_known_by_its_look(secret: str) -> None:
    assert redact(f"refused {secret} from 10.0.0.1") == f"refused {BLOT} from 10.0.0.1"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "GET /realtime?vsn=2.0.0 200",
        "Invalid token: it has expired",
        "tokens=5 tokenized=yes mytokens=1",
        "the token was refused",
        "keys eyJust kidding.",
        'WebSocket /realtime [accepted], 100% "ok" %s %d',
    ],
)
def test_other_text_stays_as_it_is(text: str) -> None:
    assert redact(text) == text


@given(st.text(max_size=80), st.sampled_from(["token", "apikey", "access_token"]))
def test_whatever_stands_around_it_the_value_is_gone(around: str, name: str) -> None:
    assert SECRET not in redact(f"{around}&{name}={SECRET}&{around}")


@given(st.text(max_size=200))
def test_redacting_twice_changes_nothing_more(text: str) -> None:
    once = redact(f"token={text} Bearer {text}")
    assert redact(once) == once


def test_arguments_are_cleaned_and_keep_their_number(log: Log) -> None:
    log.logger.info('%s - "WebSocket %s" [%s] %d', "1.2.3.4", f"/r?apikey={SECRET}", "accepted", 7)
    assert log.text == f'1.2.3.4 - "WebSocket /r?apikey={BLOT}" [accepted] 7'


def test_a_dict_of_arguments_is_cleaned_without_changing_the_callers(log: Log) -> None:
    details = {"path": f"/r?token={SECRET}", "client": "1.2.3.4:5"}
    log.logger.info("WebSocket CONNECT %(path)s [%(client)s]", details)
    assert log.text == f"WebSocket CONNECT /r?token={BLOT} [1.2.3.4:5]"
    assert SECRET in details["path"]


def test_a_name_in_the_format_meets_its_value_in_the_arguments(log: Log) -> None:
    log.logger.info("asked with token=%s by %d", SECRET, 7)
    assert log.text == f"asked with token={BLOT} by 7"


@pytest.mark.parametrize(
    "value",
    [
        [(b"authorization", f"Bearer {SECRET}".encode())],
        {"access_token": SECRET},
        f"token={SECRET}".encode(),
        ValueError(f"apikey={SECRET}"),
    ],
    ids=["headers", "dict", "bytes", "exception"],
)
@pytest.mark.parametrize("form", ["%s", "%r", "a %s"])
def test_arguments_that_are_no_text_are_cleaned_in_the_message(
    log: Log, form: str, value: Any
) -> None:
    log.logger.warning(form + " %d", value, 7)
    assert SECRET not in log.text
    assert BLOT in log.text and log.text.endswith(" 7")


def test_a_message_that_is_no_text_is_cleaned(log: Log) -> None:
    log.logger.error(ValueError(f"token={SECRET}"))
    assert log.text == f"token={BLOT}"


def test_percent_signs_survive(log: Log) -> None:
    log.logger.info("100%% of token=%s%%", SECRET)
    log.logger.info(f"50% token={SECRET} %s")
    assert log.text == f"100% of token={BLOT}\n50% token={BLOT} %s"


def test_tracebacks_are_cleaned(log: Log) -> None:
    try:
        raise ValueError(f"bad request /r?token={SECRET}")
    except ValueError:
        log.logger.exception("failed", stack_info=True)
    assert SECRET not in log.text
    assert f"ValueError: bad request /r?token={BLOT}" in log.text


def test_a_harmless_traceback_is_left_to_the_formatter(log: Log) -> None:
    class Short(logging.Formatter):
        def formatException(self, ei: Any) -> str:
            return f"<{ei[0].__name__}>"

    log.handler.setFormatter(Short())
    try:
        raise ValueError("harmless")
    except ValueError:
        log.logger.exception("failed")
    assert log.text == "failed\n<ValueError>"


def test_extra_fields_are_cleaned(log: Log) -> None:
    log.handler.setFormatter(logging.Formatter("%(message)s %(path)s"))
    log.logger.info("seen", extra={"path": f"/r?token={SECRET}"})
    assert log.text == f"seen /r?token={BLOT}"


def test_uvicorns_access_formatter_still_finds_its_arguments(log: Log) -> None:
    log.handler.setFormatter(AccessFormatter("%(client_addr)s %(request_line)s", use_colors=False))
    log.logger.info('%s - "%s %s HTTP/%s" %d', "1.2.3.4:5", "GET", f"/r?token={SECRET}", "1.1", 200)
    assert log.text == f"1.2.3.4:5 GET /r?token={BLOT} HTTP/1.1"


def test_uvicorns_coloured_message_is_cleaned_too(log: Log) -> None:
    log.handler.setFormatter(DefaultFormatter("%(message)s", use_colors=True))
    for message in ("token=%s", "at %s"):
        value = SECRET if message.startswith("token") else f"/r?token={SECRET}"
        log.logger.info(message, value, extra={"color_message": f"<b>{message}</b>"})
    assert log.text == f"token={BLOT}\n<b>at /r?token={BLOT}</b>"


def test_arguments_that_do_not_fit_leak_nothing(log: Log, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", True)
    log.logger.info("%d", f"token={SECRET}")
    log.logger.info("%s %s", [f"token={SECRET}"])
    captured = capsys.readouterr()
    assert SECRET not in captured.err + captured.out + log.text


def test_an_object_that_cannot_be_printed_does_not_stop_the_line(log: Log) -> None:
    class Unprintable:
        def __str__(self) -> str:
            raise RuntimeError(SECRET)

    log.logger.info("%s", Unprintable())
    assert log.text == "A log record of test could not be checked for credentials"


@pytest.fixture
def restored() -> Iterator[None]:
    before = {name: list(logging.getLogger(name).filters) for name in SERVER_LOGGERS}
    yield
    for name, filters in before.items():
        logging.getLogger(name).filters[:] = filters


def test_installing_twice_filters_once(restored: None) -> None:
    install()
    install()
    for name in SERVER_LOGGERS:
        filters = logging.getLogger(name).filters
        assert sum(isinstance(found, RedactCredentials) for found in filters) == 1


def test_long_hostile_lines_are_cleaned() -> None:
    """Lines that would keep a careless pattern busy for minutes."""
    for piece in (
        "-eyJ",
        "eyJaaaa",
        "token",
        "Bearer ",
        '\\"',
        "sb_secret",
        '"token"',
        "token=%3D",
    ):
        redact(piece * 50_000)
