"""`mint_token` prints a token that is accepted, or one clear line."""

from __future__ import annotations

import io
import time
from typing import Any

import jwt
import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command

from auth_rls import Subject
from auth_rls.subjects import tokens


def mint(*arguments: str) -> str:
    out = io.StringIO()
    call_command("mint_token", *arguments, stdout=out)
    return out.getvalue()


def refusal(*arguments: str) -> str:
    with pytest.raises(CommandError) as caught:
        mint(*arguments)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_it_prints_the_token_and_nothing_else() -> None:
    before = int(time.time())
    printed = mint("--sub", "7")
    assert printed.count("\n") == 1 and printed.endswith("\n")
    claims = tokens.verify(printed.strip())
    assert (claims["sub"], claims["role"]) == ("7", "authenticated")
    assert before <= claims["iat"] <= int(time.time())
    assert claims["exp"] - claims["iat"] == 3600


@pytest.mark.django_db
def test_its_token_stands_for_the_user() -> None:
    ada = User.objects.create_user("ada")
    assert Subject.from_token(mint("--sub", str(ada.pk)).strip()).user == ada


@pytest.mark.parametrize(
    ("ttl", "seconds"), [("90s", 90), ("30m", 1800), ("1h", 3600), ("7d", 604_800), ("1h30m", 5400)]
)
def test_a_time_to_live_has_a_unit(ttl: str, seconds: int) -> None:
    claims = tokens.verify(mint("--sub", "7", "--ttl", ttl).strip())
    assert claims["exp"] - claims["iat"] == seconds


@pytest.mark.parametrize("ttl", ["", "1", "h", "1w", "-1h", "1.5h", "1h ", "1 h", "forever", "１h"])
def test_a_time_to_live_of_another_form_is_refused(ttl: str) -> None:
    assert refusal("--sub", "7", f"--ttl={ttl}").startswith("--ttl must look like 90s, 30m")


@pytest.mark.parametrize("ttl", ["0s", "0h0m", "36501d", "999999999d"])
def test_a_time_to_live_of_nothing_or_of_ages_is_refused(ttl: str) -> None:
    assert "at most 100 years" in refusal("--sub", "7", "--ttl", ttl)


def test_claims_are_json_or_text() -> None:
    given = ["n=1", "t=yes", "s=true", 'l=["a",{"b":null}]', "q=a=b", 'x="7"', "e=", "nan=NaN"]
    arguments = [part for claim in given for part in ("--claim", claim)]
    claims = tokens.verify(mint("--sub", "7", *arguments).strip())
    expected = {"n": 1, "t": "yes", "s": True, "l": ["a", {"b": None}]}
    expected |= {"q": "a=b", "x": "7", "e": "", "nan": "NaN"}
    assert expected.items() <= claims.items()


@pytest.mark.parametrize("claim", ["", "novalue", "=x"])
def test_a_claim_of_another_form_is_refused(claim: str) -> None:
    assert refusal("--sub", "7", f"--claim={claim}").startswith("--claim must look like NAME=VALUE")


@pytest.mark.parametrize(
    ("claim", "option"), [("sub", "--sub"), ("role", "--role"), ("exp", "--ttl")]
)
def test_a_claim_that_has_an_option_is_refused(claim: str, option: str) -> None:
    assert option in refusal("--sub", "7", "--claim", f"{claim}=1")


def test_a_role_there_is_not_is_refused() -> None:
    assert refusal("--sub", "7", "--role", "admin").startswith("--role must be one of anon,")


def test_only_a_token_of_a_user_needs_a_sub() -> None:
    assert "--sub is missing" in refusal()
    assert "sub" not in tokens.verify(mint("--role", "service_role").strip())


def test_audience_and_issuer_are_those_that_are_accepted(settings: Any) -> None:
    settings.AUTH_RLS = {"JWT_AUDIENCE": "app", "JWT_ISSUER": ["https://id.example"]}
    claims = tokens.verify(mint("--sub", "7").strip())
    assert (claims["aud"], claims["iss"]) == ("app", "https://id.example")


def test_a_token_that_would_be_refused_is_not_printed(settings: Any) -> None:
    settings.AUTH_RLS = {"JWT_AUDIENCE": "app"}
    assert "audience" in refusal("--sub", "7", "--claim", "aud=other")
    assert "`iat` must be a number" in refusal("--sub", "7", "--claim", "iat=now")
    assert "not valid yet" in refusal("--sub", "7", "--claim", "nbf=9000000000")
    assert "not a valid JWT" in refusal("--sub", "x" * 20_000)


def test_the_algorithm_is_the_first_that_has_a_secret(settings: Any) -> None:
    settings.AUTH_RLS = {"JWT_ALGORITHMS": ["HS512", "HS256"], "JWT_KEY": "k" * 64}
    assert jwt.get_unverified_header(mint("--sub", "7").strip())["alg"] == "HS512"


def test_without_a_shared_secret_it_says_so(settings: Any) -> None:
    settings.AUTH_RLS = {"JWT_ALGORITHMS": ["RS256"], "JWKS_URL": "https://id.example/jwks"}
    assert refusal("--sub", "7").startswith("Tokens are signed elsewhere: JWT_ALGORITHMS (RS256)")


@pytest.mark.parametrize("keys", [{"JWT_KEY": ""}, {"JWT_KEY": None}, {"JWT_KEI": "x"}])
def test_wrong_settings_are_one_clear_line(settings: Any, keys: dict[str, Any]) -> None:
    settings.AUTH_RLS = keys
    assert "JWT_KEY" in refusal("--sub", "7")
