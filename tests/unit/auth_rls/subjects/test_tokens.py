"""Tokens: each sort of broken one is refused in the protocol's words, and only good ones pass."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from django.core.exceptions import ImproperlyConfigured
from hypothesis import given
from hypothesis import strategies as st

from auth_rls import conf
from auth_rls.subjects import tokens
from tests.support.signing import (
    BAD_SIGNATURE,
    GOOD,
    HS256,
    KEY,
    NO_SIGNER,
    NOW,
    base64url,
    public_jwk,
    refusal,
    signed,
)

pytestmark = pytest.mark.usefixtures("auth")


def raw(header: bytes, payload: bytes, key: str = KEY) -> str:
    """A token of any bytes at all, rightly signed with HS256."""
    message = b".".join(base64url(part) for part in (header, payload))
    signature = hmac.new(key.encode(), message, hashlib.sha256).digest()
    return (message + b"." + base64url(signature)).decode()


MALFORMED = "MalformedJWT: The token provided is not a valid JWT"
FIELDS = "InvalidJWTToken: Fields `role` and `exp` are required in JWT"
BAD_EXP = "InvalidJWTToken: Token expiration time is invalid"


def test_a_good_token_gives_its_claims() -> None:
    assert tokens.verify(signed(), now=NOW) == GOOD


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "...",
        "garbage",
        "a.b.c",
        "sb_publishable_x",
        signed() + ".extra",
        signed()[:40],
        "Bearer " + signed(),
        signed() + "\0",
        "\0" + signed(),
        "tökén.ä.ö",
        "eyJhbGciOiJIUzI1NiJ9.\ud800.x",
        None,
        7,
        b"a.b.c",
        signed({**GOOD, "padding": "x" * 20_000}),
        raw(b"[]", b"{}"),
        raw(b"\xff\xfe", b"{}"),
        raw(b"[" * 9_000, b"{}"),
        raw(b'{"alg":"HS256","kid":7}', b"{}"),
        raw(b'{"alg":"HS256","crit":["x"],"x":1}', b"{}"),
        raw(b'{"alg":"HS256","b64":false,"crit":["b64"]}', b""),
        raw(HS256, b""),
        raw(HS256, b"not json"),
        raw(HS256, b"\xff"),
        raw(HS256, b"[1]"),
        raw(HS256, b"null"),
        raw(HS256, b'{"role":"anon","exp":NaN}'),
        raw(HS256, b'{"role":"anon","exp":Infinity}'),
        raw(HS256, b'{"a":' * 2_000 + b"1" + b"}" * 2_000),
        raw(HS256, b'{"role":"anon","exp":2000000000,"sub":"\\u0000"}'),
        raw(HS256, b'{"role":"anon","exp":2000000000,"sub":"\\ud800"}'),
        raw(HS256, b'{"role":"anon","exp":2000000000,"a":[{"\\u0000":1}]}'),
        raw(HS256, b'{"role":"anon","exp":' + b"9" * 5_000 + b"}"),
    ],
    ids=lambda text: repr(text)[:30],
)
def test_what_is_no_jwt_is_called_malformed(text: Any) -> None:
    assert refusal(text) == MALFORMED


@given(st.text(alphabet=st.characters(), max_size=60))
def test_no_text_whatever_raises_anything_but_a_token_error(text: str) -> None:
    refusal(text)


@given(header=st.binary(max_size=40), payload=st.binary(max_size=40))
def test_no_bytes_whatever_raise_anything_but_a_token_error(header: bytes, payload: bytes) -> None:
    refusal(raw(header, payload))
    refusal(raw(HS256, payload))


@pytest.mark.parametrize(
    "text",
    [
        signed(key="another-key-that-is-long-enough-for-hs256"),
        signed().rpartition(".")[0] + ".",
        signed().rpartition(".")[0] + "." + "A" * 43,
        ".".join((signed().split(".")[0], signed({**GOOD, "sub": "8"}).split(".")[1]))
        + "."
        + signed().split(".")[2],
    ],
    ids=["another key", "empty", "zeros", "payload of another"],
)
def test_a_wrong_signature_is_refused(text: str) -> None:
    assert refusal(text) == BAD_SIGNATURE


def test_a_wrong_signature_is_said_before_anything_about_the_claims() -> None:
    text = signed({"exp": 1}, key="another-key-that-is-long-enough-for-hs256")
    assert refusal(text) == BAD_SIGNATURE


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "HS384", "RS256", "", None, 7, []])
def test_an_algorithm_that_is_not_listed_is_refused(algorithm: Any) -> None:
    header = json.dumps({"alg": algorithm}).encode()
    payload = json.dumps(GOOD).encode()
    assert refusal(raw(header, payload)) == NO_SIGNER
    unsigned = raw(header, payload).rpartition(".")[0] + "."
    assert refusal(unsigned) == NO_SIGNER


def test_a_token_without_an_algorithm_is_refused() -> None:
    assert refusal(raw(b"{}", json.dumps(GOOD).encode())) == NO_SIGNER


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_every_hmac_algorithm_can_be_allowed(auth: Any, algorithm: str) -> None:
    auth(JWT_ALGORITHMS=[algorithm])
    assert tokens.verify(signed(algorithm=algorithm), now=NOW)["sub"] == "7"


def test_an_expired_token_says_how_long_ago() -> None:
    with pytest.raises(tokens.ExpiredToken) as caught:
        tokens.verify(signed(), now=GOOD["exp"] + 42.7)
    assert str(caught.value) == "InvalidJWTToken: Token has expired 42 seconds ago"
    assert caught.value.handshake_reason == "Token has expired"


def test_a_token_expires_at_the_very_second() -> None:
    tokens.verify(signed(), now=GOOD["exp"] - 0.001)
    assert refusal(signed(), now=GOOD["exp"]).endswith("Token has expired 0 seconds ago")


def test_a_decimal_expiry_is_rounded() -> None:
    assert tokens.verify(signed({**GOOD, "exp": NOW + 9.6}), now=NOW)["exp"] == NOW + 10


def test_exp_is_required() -> None:
    without = {name: value for name, value in GOOD.items() if name != "exp"}
    assert refusal(signed(without)) == FIELDS
    assert refusal(raw(HS256, json.dumps({**GOOD, "exp": None}).encode())) == FIELDS


NO_ROLE = [{name: GOOD[name] for name in ("sub", "exp")}, {**GOOD, "role": None}]


@pytest.mark.parametrize("claims", NO_ROLE, ids=["absent", "null"])
def test_a_token_without_a_role_has_the_default_role_or_is_refused(auth: Any, claims: Any) -> None:
    text = raw(HS256, json.dumps(claims).encode())
    assert tokens.verified(text, now=NOW).role == "authenticated"
    auth(DEFAULT_ROLE="anon")
    assert tokens.verified(text, now=NOW).role == "anon"
    auth(DEFAULT_ROLE=None)
    assert refusal(text) == FIELDS


@pytest.mark.parametrize("role", [7, True, ["authenticated"], [], {"name": "anon"}])
def test_a_role_that_is_no_string_is_refused(role: Any) -> None:
    assert refusal(signed({**GOOD, "role": role})) == FIELDS


@pytest.mark.parametrize("role", ["", "admin", "postgres", "Authenticated", "service_role "])
def test_an_unknown_role_is_refused(role: str) -> None:
    assert refusal(signed({**GOOD, "role": role})) == (
        "InvalidJWTToken: role must be one of anon, authenticated, service_role"
    )


@pytest.mark.parametrize("exp", ["2000000000", "", True, [1], {}, 10**20, -(10**20)])
def test_an_expiry_that_is_no_number_is_refused(exp: Any) -> None:
    text = raw(HS256, json.dumps({**GOOD, "exp": exp}).encode())
    assert refusal(text) == BAD_EXP


def test_an_expiry_beyond_every_number_is_refused() -> None:
    assert refusal(raw(HS256, b'{"role":"anon","exp":1e999}')) == BAD_EXP


def test_a_token_that_is_not_valid_yet_is_refused() -> None:
    text = signed({**GOOD, "nbf": int(NOW) + 5})
    assert refusal(text) == "InvalidJWTToken: Token is not valid yet"
    assert tokens.verify(text, now=NOW + 5)["sub"] == "7"


@pytest.mark.parametrize("name", ["iat", "nbf"])
def test_iat_and_nbf_must_be_numbers(name: str) -> None:
    text = raw(HS256, json.dumps({**GOOD, name: "1"}).encode())
    assert refusal(text) == f"InvalidJWTToken: Field `{name}` must be a number"


def test_the_leeway_stretches_both_ends(auth: Any) -> None:
    auth(JWT_LEEWAY=30)
    text = signed({**GOOD, "nbf": int(NOW) + 20})
    assert tokens.verify(text, now=NOW)
    assert tokens.verify(text, now=GOOD["exp"] + 29)
    assert refusal(text, now=GOOD["exp"] + 30).endswith("expired 30 seconds ago")


@pytest.mark.parametrize("audience", ["app", ["x", "app"]])
def test_an_accepted_audience_passes(auth: Any, audience: Any) -> None:
    auth(JWT_AUDIENCE=["app", "other"])
    assert tokens.verify(signed({**GOOD, "aud": audience}), now=NOW)


@pytest.mark.parametrize("audience", [None, "x", ["x"], [], 7, [7], {"app": 1}])
def test_another_audience_is_refused(auth: Any, audience: Any) -> None:
    auth(JWT_AUDIENCE="app")
    text = raw(HS256, json.dumps({**GOOD, "aud": audience}).encode())
    assert refusal(text) == "InvalidJWTToken: Token audience is not accepted"


def test_an_audience_nobody_asked_about_is_no_matter() -> None:
    assert tokens.verify(signed({**GOOD, "aud": "authenticated"}), now=NOW)


@pytest.mark.parametrize("issuer", [None, "https://evil.example", ["https://id.example"], 7])
def test_another_issuer_is_refused(auth: Any, issuer: Any) -> None:
    auth(JWT_ISSUER="https://id.example")
    assert tokens.verify(signed({**GOOD, "iss": "https://id.example"}), now=NOW)
    text = raw(HS256, json.dumps({**GOOD, "iss": issuer}).encode())
    assert refusal(text) == "InvalidJWTToken: Token issuer is not accepted"


def test_the_role_claim_can_have_another_name(auth: Any) -> None:
    auth(ROLE_CLAIM="https://example.com/role", DEFAULT_ROLE=None)
    named = {"https://example.com/role": "anon", "exp": GOOD["exp"]}
    assert tokens.verified(signed(named), now=NOW).role == "anon"
    assert "`https://example.com/role` and `exp` are required" in refusal(signed())


@pytest.mark.parametrize(
    ("claims", "role"),
    [
        ({"app": {"role": "anon"}}, "anon"),
        ({"app.role": "anon", "app": {"role": "service_role"}}, "anon"),
        ({"app": {"role": None}}, "authenticated"),
        ({"app": "anon"}, "authenticated"),
        ({"role": "anon"}, "authenticated"),
    ],
)
def test_the_role_claim_can_be_a_path(auth: Any, claims: Any, role: str) -> None:
    auth(ROLE_CLAIM="app.role")
    assert tokens.verified(signed({**claims, "exp": GOOD["exp"]}), now=NOW).role == role


@pytest.mark.parametrize(
    ("value", "role"),
    [
        ("boss", "service_role"),
        ("guest", "anon"),
        ("authenticated", "authenticated"),
        (["x", "guest", "boss"], "service_role"),
        (["x", "guest"], "anon"),
        (["x", "service_role"], "authenticated"),
        ([], "authenticated"),
        (True, "anon"),
    ],
    ids=repr,
)
def test_a_map_gives_roles_to_values_and_to_those_in_a_list(
    auth: Any, value: Any, role: str
) -> None:
    auth(ROLE_MAP={"boss": "service_role", "guest": "anon", True: "anon"})
    assert tokens.verified(signed({**GOOD, "role": value}), now=NOW).role == role


@pytest.mark.parametrize("value", ["Boss", "x", 1, 1.0, False, {"boss": 1}], ids=repr)
def test_what_the_map_does_not_name_is_refused(auth: Any, value: Any) -> None:
    auth(ROLE_MAP={"boss": "service_role", True: "service_role"})
    assert refusal(signed({**GOOD, "role": value})).startswith("InvalidJWTToken: ")


def test_a_claim_can_be_demanded(auth: Any) -> None:
    auth(REQUIRED_CLAIMS={"token_type": "access", "app.verified": True})
    good = {**GOOD, "token_type": "access", "app": {"verified": True}}
    assert tokens.verify(signed(good), now=NOW) == good
    for wrong in (
        {"token_type": "refresh"},
        {"token_type": None},
        {"token_type": ["access"]},
        {"app": {"verified": 1}},
        {"app": {"verified": "true"}},
        {"app": {}},
    ):
        assert " is not as required" in refusal(signed({**good, **wrong}))
    assert refusal(signed()) == "InvalidJWTToken: Field `token_type` is not as required"


@pytest.mark.parametrize(
    "claim",
    [
        {"token_type": "refresh"},
        {"token_use": "refresh"},
        {"typ": "Refresh"},
        {"typ": "Offline"},
        {"typ": "Logout"},
        {"type": "refresh"},
    ],
)
def test_a_token_that_is_by_its_own_words_no_access_token_is_refused(claim: Any) -> None:
    assert "gives no access" in refusal(signed({**GOOD, **claim}))


@pytest.mark.parametrize("claim", [{"token_type": "access"}, {"token_use": "id"}, {"typ": "ID"}])
def test_other_words_about_its_use_do_no_harm(claim: Any) -> None:
    assert tokens.verify(signed({**GOOD, **claim}), now=NOW)


@pytest.mark.parametrize("kind", ["logout+jwt", "secevent+jwt", "dpop+jwt", "JOSE", "", 7])
def test_a_token_made_for_something_else_is_refused(kind: Any) -> None:
    header = json.dumps({"alg": "HS256", "typ": kind}).encode()
    assert "InvalidJWTToken" in refusal(raw(header, json.dumps(GOOD).encode()))


@pytest.mark.parametrize("kind", ["JWT", "jwt", "at+jwt", "application/at+jwt", None])
def test_an_access_token_may_say_that_it_is_one(kind: Any) -> None:
    header = json.dumps({"alg": "HS256", "typ": kind}).encode()
    assert tokens.verify(raw(header, json.dumps(GOOD).encode()), now=NOW) == GOOD


def test_an_older_secret_key_is_good_while_django_lists_it(settings: Any) -> None:
    settings.AUTH_RLS = {}
    settings.SECRET_KEY = "the-new-secret-key-which-is-long-enough"
    settings.SECRET_KEY_FALLBACKS = [KEY]
    assert tokens.verify(signed(), now=NOW)
    assert tokens.verify(signed(key=settings.SECRET_KEY), now=NOW)
    settings.SECRET_KEY_FALLBACKS = []
    assert refusal(signed()) == BAD_SIGNATURE


def test_a_signed_token_verifies_and_other_libraries_read_it() -> None:
    text = tokens.sign(GOOD)
    assert tokens.verify(text, now=NOW) == GOOD
    options = {"verify_exp": False}
    assert jwt.decode(text, KEY, ["HS256"], options=options) == GOOD


# Asymmetric keys


SERVICE = {"role": "service_role", "exp": GOOD["exp"]}
NO_SERVICE = "InvalidJWTToken: The role service_role is not accepted from this token"


def test_only_our_own_key_makes_a_token_of_the_service_role(auth: Any, private: Any) -> None:
    secret = "the-secret-in-the-key-set-is-long-enough"
    shared = {"kty": "oct", "kid": "s", "k": base64url(secret.encode()).decode()}
    keys = {"keys": [public_jwk(private["RS256"], "RS256", "k"), shared]}
    foreign = signed(SERVICE, key=private["RS256"], algorithm="RS256", kid="k")
    by_secret = signed(SERVICE, key=secret, kid="s")
    auth(JWT_ALGORITHMS=["HS256", "RS256"], JWKS=keys)
    assert tokens.verified(signed(SERVICE), now=NOW).role == "service_role"
    assert refusal(foreign) == refusal(by_secret) == NO_SERVICE
    auth(JWT_ALGORITHMS=["HS256", "RS256"], JWKS=keys, SERVICE_ROLE_TOKENS="any")
    for text in (foreign, by_secret, signed(SERVICE)):
        assert tokens.verified(text, now=NOW).role == "service_role"
    auth(JWT_ALGORITHMS=["HS256", "RS256"], JWKS=keys, SERVICE_ROLE_TOKENS="never")
    for text in (foreign, by_secret, signed(SERVICE)):
        assert refusal(text) == NO_SERVICE


def test_no_mapped_value_of_a_foreign_token_makes_the_service_role(auth: Any, private: Any) -> None:
    keys = {"keys": [public_jwk(private["RS256"], "RS256", "k")]}
    auth(JWT_ALGORITHMS=["RS256"], JWKS=keys, ROLE_MAP={"boss": "service_role"})
    claims = {"role": ["boss"], "exp": GOOD["exp"]}
    assert refusal(signed(claims, key=private["RS256"], algorithm="RS256", kid="k")) == NO_SERVICE


# A key set at a URL


# Settings


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"JWT_ALGORITHM": ["HS256"]}, "did you mean 'JWT_ALGORITHMS'"),
        ({"jwt_key": "x"}, "did you mean 'JWT_KEY'"),
        ({"colour": 1}, "Its keys are JWT_KEY"),
        ({7: 1}, "has no key 7"),
        (["JWT_KEY"], "must be a dict, not list"),
        ({"JWT_ALGORITHMS": "HS256"}, "must be a list"),
        ({"JWT_ALGORITHMS": []}, "must be a list"),
        ({"JWT_ALGORITHMS": ["none"]}, "holds 'none'"),
        ({"JWT_ALGORITHMS": ["RS256"]}, "must come from JWKS or JWKS_URL"),
        ({"JWT_KEY": ""}, "non-empty string"),
        ({"JWT_KEY": None}, "non-empty string"),
        ({"JWT_KEY": 7}, "non-empty string"),
        ({"JWKS": {}}, r'AUTH_RLS\["JWKS"\]: a JWKS is an object'),
        ({"JWKS": {"keys": []}}, "holds no key for JWT_ALGORITHMS"),
        ({"JWKS": {"keys": [{"kty": "RSA"}]}}, r"keys\[0\]: not a usable RSA key"),
        ({"JWKS": {"keys": []}, "JWKS_URL": "https://x"}, "not both"),
        ({"JWKS_URL": "https://id.example/"}, "name their algorithm"),
        ({"JWT_AUDIENCE": 7}, "JWT_AUDIENCE"),
        ({"JWT_ISSUER": []}, "JWT_ISSUER"),
        ({"JWT_LEEWAY": "5"}, "JWT_LEEWAY"),
        ({"JWT_LEEWAY": -1}, "JWT_LEEWAY"),
        ({"JWT_LEEWAY": float("nan")}, "JWT_LEEWAY"),
        ({"USER_ID_CLAIM": ""}, "USER_ID_CLAIM"),
        ({"USER_ID_CLAIM": []}, "USER_ID_CLAIM"),
        ({"USER_ID_CLAIM": ["sub", 7]}, "USER_ID_CLAIM"),
        ({"USER_FIELD": None}, "USER_FIELD"),
        ({"DEFAULT_ROLE": "service_role"}, "DEFAULT_ROLE"),
        ({"DEFAULT_ROLE": ""}, "DEFAULT_ROLE"),
        ({"ROLE_MAP": {"boss": "admin"}}, "ROLE_MAP"),
        ({"ROLE_MAP": ["boss"]}, "ROLE_MAP"),
        ({"REQUIRED_CLAIMS": ["aal"]}, "REQUIRED_CLAIMS"),
        ({"REQUIRED_CLAIMS": {"aal": None}}, "REQUIRED_CLAIMS"),
        ({"SERVICE_ROLE_TOKENS": True}, "SERVICE_ROLE_TOKENS"),
        ({"ROLE_CLAIM": None}, "ROLE_CLAIM"),
    ],
)
def test_a_wrong_setting_is_said_by_name(settings: Any, keys: Any, message: str) -> None:
    settings.AUTH_RLS = keys
    with pytest.raises(ImproperlyConfigured, match=message):
        conf.current()


def test_a_public_key_as_jwt_key_is_a_mistake_that_is_said(auth: Any, private: Any) -> None:
    pem = (
        private["RS256"]
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    auth(JWT_KEY=pem.decode())
    with pytest.raises(ImproperlyConfigured, match="belongs in JWKS"):
        conf.current()


def test_settings_are_read_once_and_again_after_a_change(auth: Any) -> None:
    first = conf.current()
    assert conf.current() is first
    auth(JWT_LEEWAY=5)
    assert conf.current().leeway == 5.0


def test_no_secret_shows_when_the_settings_are_printed(auth: Any) -> None:
    hidden = base64url(b"a-secret-in-the-key-set").decode()
    auth(JWKS={"keys": [{"kty": "oct", "kid": "k", "k": hidden}]})
    shown = repr(conf.current())
    assert KEY not in shown and hidden not in shown and "a-secret" not in shown
