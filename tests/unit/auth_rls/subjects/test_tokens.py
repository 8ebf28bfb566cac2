"""Tokens: each sort of broken one is refused in the protocol's words, and only good ones pass."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from django.core.exceptions import ImproperlyConfigured
from hypothesis import given
from hypothesis import strategies as st

from auth_rls import conf
from auth_rls.keys import remote_key_set
from auth_rls.keys.key_set import KeySet, KeySetError
from auth_rls.subjects import tokens
from tests.support.waiting import until

KEY = "a-test-key-that-is-long-enough-for-hs512-too-if-it-is-written-out-in-full"
NOW = 1_800_000_000.0
GOOD = {"role": "authenticated", "sub": "7", "exp": int(NOW) + 60}


@pytest.fixture(autouse=True)
def auth(settings: Any) -> Callable[..., None]:
    """Sets AUTH_RLS; without a call it holds the key alone."""

    def configure(**keys: Any) -> None:
        settings.AUTH_RLS = {"JWT_KEY": KEY, **keys}

    configure()
    return configure


def signed(claims: Any = None, key: Any = KEY, algorithm: str = "HS256", **header: Any) -> str:
    """A token of any claims, key, algorithm and header; `support.tokens.token` makes the usual."""
    return jwt.encode(GOOD if claims is None else claims, key, algorithm, headers=header or None)


def raw(header: bytes, payload: bytes, key: str = KEY) -> str:
    """A token of any bytes at all, rightly signed with HS256."""
    message = b".".join(_base64url(part) for part in (header, payload))
    signature = hmac.new(key.encode(), message, hashlib.sha256).digest()
    return (message + b"." + _base64url(signature)).decode()


def _base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def refusal(text: Any, now: float = NOW) -> str:
    with pytest.raises(tokens.TokenError) as caught:
        tokens.verify(text, now=now)
    return str(caught.value)


MALFORMED = "MalformedJWT: The token provided is not a valid JWT"
NO_SIGNER = (
    "JwtSignerError: Failed to generate JWT signer, check your JWT secret or JWKS configuration"
)
BAD_SIGNATURE = "JwtSignatureError: Failed to validate JWT signature"
FIELDS = "InvalidJWTToken: Fields `role` and `exp` are required in JWT"
BAD_EXP = "InvalidJWTToken: Token expiration time is invalid"
HS256 = b'{"alg":"HS256"}'


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


@pytest.fixture(scope="module")
def private() -> dict[str, Any]:
    rsa_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return {
        "RS256": rsa_key,
        "RS384": rsa_key,
        "RS512": rsa_key,
        "ES256": ec.generate_private_key(ec.SECP256R1()),
        "ES384": ec.generate_private_key(ec.SECP384R1()),
        "ES512": ec.generate_private_key(ec.SECP521R1()),
        "EdDSA": ed25519.Ed25519PrivateKey.generate(),
    }


def public_jwk(key: Any, algorithm: str, kid: str | None, **extra: Any) -> dict[str, Any]:
    jwk = jwt.get_algorithm_by_name(algorithm).to_jwk(key.public_key(), as_dict=True)
    jwk.pop("key_ops", None)
    return {**jwk, **({} if kid is None else {"kid": kid}), **extra}


@pytest.mark.parametrize(
    "algorithm", ["RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "EdDSA"]
)
def test_a_key_of_the_set_is_chosen_by_its_name(auth: Any, private: Any, algorithm: str) -> None:
    other = {"RS": "EdDSA", "ES": "RS256", "Ed": "ES256"}[algorithm[:2]]
    jwk_set = {
        "keys": [
            public_jwk(private[other], other, "other"),
            public_jwk(private[algorithm], algorithm, "mine", use="sig"),
        ]
    }
    auth(JWT_ALGORITHMS=[algorithm], JWKS=jwk_set)
    text = signed(key=private[algorithm], algorithm=algorithm, kid="mine")
    assert tokens.verify(text, now=NOW)["sub"] == "7"
    for kid in ("other", "unknown", ""):
        assert refusal(signed(key=private[algorithm], algorithm=algorithm, kid=kid)) == NO_SIGNER


def test_an_ed448_key_serves_as_well(auth: Any) -> None:
    key = ed448.Ed448PrivateKey.generate()
    auth(JWT_ALGORITHMS=["EdDSA"], JWKS={"keys": [public_jwk(key, "EdDSA", "k")]})
    assert tokens.verify(signed(key=key, algorithm="EdDSA", kid="k"), now=NOW)


def test_a_token_that_names_no_key_is_checked_with_the_only_one(auth: Any, private: Any) -> None:
    one = public_jwk(private["RS256"], "RS256", "one")
    auth(JWT_ALGORITHMS=["RS256"], JWKS={"keys": [one]})
    text = signed(key=private["RS256"], algorithm="RS256")
    assert tokens.verify(text, now=NOW)
    auth(JWT_ALGORITHMS=["RS256"], JWKS={"keys": [one, {**one, "kid": "two"}]})
    assert refusal(text) == NO_SIGNER


def test_a_public_key_is_never_taken_for_a_shared_secret(auth: Any, private: Any) -> None:
    """Algorithm confusion: HS256 with the bytes of the RSA key everybody may know."""
    jwk = public_jwk(private["RS256"], "RS256", "k")
    auth(JWT_ALGORITHMS=["RS256", "HS256"], JWKS={"keys": [jwk]})
    public = private["RS256"].public_key()
    forms = [
        public.public_bytes(encoding, form)
        for encoding, form in (
            (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
            (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo),
            (serialization.Encoding.PEM, serialization.PublicFormat.PKCS1),
        )
    ]
    forms.append(json.dumps(jwk).encode())
    forms.append(base64.urlsafe_b64decode(jwk["n"] + "=="))
    for form in forms:
        message = b".".join(
            _base64url(part) for part in (b'{"alg":"HS256","kid":"k"}', json.dumps(GOOD).encode())
        )
        forged = message + b"." + _base64url(hmac.new(form, message, hashlib.sha256).digest())
        assert refusal(forged.decode()) == BAD_SIGNATURE


def test_an_rsa_key_that_names_its_algorithm_checks_no_other(auth: Any, private: Any) -> None:
    jwk = public_jwk(private["RS256"], "RS256", "k", alg="RS256")
    auth(JWT_ALGORITHMS=["RS256", "RS512"], JWKS={"keys": [jwk]})
    assert tokens.verify(signed(key=private["RS256"], algorithm="RS256", kid="k"), now=NOW)
    assert refusal(signed(key=private["RS256"], algorithm="RS512", kid="k")) == NO_SIGNER


def test_keys_a_token_brings_along_are_not_looked_at(auth: Any, private: Any) -> None:
    mine = public_jwk(private["RS256"], "RS256", "k")
    stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    auth(JWT_ALGORITHMS=["RS256"], JWKS={"keys": [mine]})
    brought = public_jwk(stranger, "RS256", "k")
    forged = signed(key=stranger, algorithm="RS256", kid="k", jwk=brought, jku="https://evil.test")
    assert refusal(forged) == BAD_SIGNATURE


def test_keys_for_encryption_do_not_check_signatures(auth: Any, private: Any) -> None:
    jwk = public_jwk(private["RS256"], "RS256", "k")
    for unsuited in ({"use": "enc"}, {"key_ops": ["encrypt"]}, {"alg": "RSA-OAEP"}):
        assert KeySet.parse({"keys": [{**jwk, **unsuited}]}, secrets=True).keys == ()


def test_a_private_key_in_the_set_serves_by_its_public_half(auth: Any, private: Any) -> None:
    jwk = jwt.get_algorithm_by_name("RS256").to_jwk(private["RS256"], as_dict=True)
    auth(JWT_ALGORITHMS=["RS256"], JWKS={"keys": [{**jwk, "kid": "k"}]})
    assert tokens.verify(signed(key=private["RS256"], algorithm="RS256", kid="k"), now=NOW)


def test_a_shared_secret_in_the_set_is_found_by_name_else_the_jwt_key_serves(auth: Any) -> None:
    other = "the-secret-in-the-key-set-is-long-enough"
    jwk = {"kty": "oct", "kid": "old", "k": _base64url(other.encode()).decode()}
    auth(JWKS={"keys": [jwk]})
    assert tokens.verify(signed(key=other, kid="old"), now=NOW)
    assert tokens.verify(signed(kid="unknown"), now=NOW)
    assert tokens.verify(signed(), now=NOW)
    assert refusal(signed(kid="old")) == BAD_SIGNATURE
    assert refusal(signed(key=other)) == BAD_SIGNATURE


SERVICE = {"role": "service_role", "exp": GOOD["exp"]}
NO_SERVICE = "InvalidJWTToken: The role service_role is not accepted from this token"


def test_only_our_own_key_makes_a_token_of_the_service_role(auth: Any, private: Any) -> None:
    secret = "the-secret-in-the-key-set-is-long-enough"
    shared = {"kty": "oct", "kid": "s", "k": _base64url(secret.encode()).decode()}
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


class Endpoint:
    """A key set on a real server: what it answers can be changed, what it was asked is counted."""

    def __init__(self) -> None:
        self.document: Any = {"keys": []}
        self.status = 200
        self.location = ""
        self.asked = 0
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                endpoint.asked += 1
                body = endpoint.document
                if not isinstance(body, bytes):
                    body = json.dumps(body).encode()
                self.send_response(endpoint.status)
                if endpoint.location:
                    self.send_header("Location", endpoint.location)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                """Silent."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/jwks"


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    endpoint = Endpoint()
    thread = threading.Thread(target=endpoint.server.serve_forever, args=(0.01,))
    thread.start()
    yield endpoint
    endpoint.server.shutdown()
    thread.join()
    endpoint.server.server_close()


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_a_remote_set_is_fetched_once_and_kept(auth: Any, private: Any, endpoint: Any) -> None:
    endpoint.document = {"keys": [public_jwk(private["ES256"], "ES256", "k")]}
    auth(JWT_ALGORITHMS=["ES256"], JWKS_URL=endpoint.url)
    for _ in range(3):
        assert tokens.verify(signed(key=private["ES256"], algorithm="ES256", kid="k"), now=NOW)
    assert endpoint.asked == 1


def test_an_unknown_key_name_is_refused_and_fetches_again_but_not_more_often_than_allowed(
    private: Any, endpoint: Any
) -> None:
    clock = Clock()
    remote = remote_key_set.RemoteKeySet(endpoint.url, clock=clock)
    endpoint.document = {"keys": [public_jwk(private["ES256"], "ES256", "old")]}
    assert remote.find("old", "ES256") is not None
    endpoint.document = {"keys": [public_jwk(private["ES256"], "ES256", "new")]}
    for _ in range(5):
        assert remote.find("new", "ES256") is None
    assert endpoint.asked == 1
    clock.now += remote_key_set.REFETCH_SECONDS
    until(lambda: remote.find("new", "ES256") is not None)
    assert remote.find("old", "ES256") is None
    assert endpoint.asked == 2


def test_a_set_grown_old_serves_while_it_is_fetched_again(private: Any, endpoint: Any) -> None:
    clock = Clock()
    remote = remote_key_set.RemoteKeySet(endpoint.url, clock=clock)
    endpoint.document = {"keys": [public_jwk(private["ES256"], "ES256", "k")]}
    assert remote.find("k", "ES256") is not None
    clock.now += remote_key_set.TTL_SECONDS
    assert remote.find("k", "ES256") is not None
    until(lambda: endpoint.asked == 2)


def test_the_last_known_keys_serve_while_the_endpoint_is_down(
    private: Any, endpoint: Any, caplog: Any
) -> None:
    clock = Clock()
    remote = remote_key_set.RemoteKeySet(endpoint.url, clock=clock)
    endpoint.document = {"keys": [public_jwk(private["ES256"], "ES256", "k")]}
    assert remote.find("k", "ES256") is not None
    endpoint.status = 503
    clock.now += remote_key_set.TTL_SECONDS
    for _ in range(3):
        assert remote.find("k", "ES256") is not None
    until(lambda: caplog.records)
    assert remote.find("k", "ES256") is not None
    assert endpoint.asked == 2
    assert [record.getMessage() for record in caplog.records] == [
        f"JWKS_URL {endpoint.url} could not be read, the last known keys serve: "
        "it answered with status 503"
    ]


@pytest.mark.parametrize(
    "document",
    [b"", b"<html>", b"[]", b"\xff", b"[" * 100_000, {"keys": "x"}, {"keys": []}, b" " * 300_000],
    ids=["empty", "html", "list", "bytes", "deep", "no list", "no keys", "large"],
)
def test_what_is_no_key_set_leaves_tokens_unchecked(
    auth: Any, private: Any, endpoint: Any, document: Any
) -> None:
    endpoint.document = document
    auth(JWT_ALGORITHMS=["ES256"], JWKS_URL=endpoint.url)
    text = signed(key=private["ES256"], algorithm="ES256", kid="k")
    assert refusal(text) == NO_SIGNER
    assert refusal(text) == NO_SIGNER
    assert endpoint.asked == 1


def test_one_broken_key_does_not_spoil_a_remote_set(private: Any, endpoint: Any) -> None:
    good = public_jwk(private["ES256"], "ES256", "k")
    endpoint.document = {
        "keys": [7, {"kty": "RSA", "kid": "bad"}, {"kty": "EC", "crv": "P-256"}, {"kid": "x"}, good]
    }
    assert remote_key_set.RemoteKeySet(endpoint.url).find("k", "ES256") is not None


def test_a_remote_set_brings_no_shared_secrets(auth: Any, private: Any, endpoint: Any) -> None:
    secret = {"kty": "oct", "kid": "s", "k": _base64url(b"x" * 40).decode()}
    endpoint.document = {"keys": [secret, public_jwk(private["ES256"], "ES256", "k")]}
    auth(JWT_ALGORITHMS=["ES256", "HS256"], JWKS_URL=endpoint.url)
    assert refusal(signed(key="x" * 40, kid="s")) == BAD_SIGNATURE
    assert endpoint.asked == 0


@pytest.mark.parametrize("location", ["http://jwks.example/", "file:///etc/passwd", "ftp://x/y"])
def test_a_redirect_to_an_unsafe_place_is_not_followed(endpoint: Any, location: str) -> None:
    endpoint.status, endpoint.location = 302, location
    with pytest.raises(KeySetError):
        remote_key_set.RemoteKeySet(endpoint.url).find("k", "RS256")
    assert endpoint.asked == 1


@pytest.mark.parametrize(
    "url", ["http://id.example/jwks", "file:///etc/passwd", "ftp://localhost/", "", "https://"]
)
def test_a_url_must_be_https_or_local(auth: Any, url: str) -> None:
    auth(JWT_ALGORITHMS=["RS256"], JWKS_URL=url)
    with pytest.raises(ImproperlyConfigured, match=r'AUTH_RLS\["JWKS_URL"\]'):
        conf.current()


def test_many_threads_share_one_fetch(private: Any) -> None:
    fetches: list[str] = []
    started, go_on = threading.Event(), threading.Event()

    def fetch(url: str) -> bytes:
        fetches.append(url)
        started.set()
        assert go_on.wait(10)
        return json.dumps({"keys": [public_jwk(private["ES256"], "ES256", "k")]}).encode()

    remote = remote_key_set.RemoteKeySet("https://id.example/jwks", fetch=fetch)
    found: list[Any] = []
    threads = [
        threading.Thread(target=lambda: found.append(remote.find("k", "ES256"))) for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    assert started.wait(10)
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert len(fetches) == 1
    assert len(found) == 5 and None not in found


class Hanging:
    """An endpoint that answers `document` at first, and then hangs until it is released."""

    def __init__(self, document: Any, answers: int = 1) -> None:
        self.document = json.dumps(document).encode()
        self.answers = answers
        self.fetches = 0
        self.released = threading.Event()

    def __call__(self, url: str) -> bytes:
        self.fetches += 1
        if self.fetches > self.answers:
            assert self.released.wait(30)
        return self.document


@pytest.fixture
def hanging(private: Any) -> Iterator[Hanging]:
    endpoint = Hanging({"keys": [public_jwk(private["ES256"], "ES256", "k")]})
    yield endpoint
    endpoint.released.set()


URL = "https://id.example/jwks"


def test_while_the_endpoint_hangs_known_keys_serve_and_unknown_ones_are_refused(
    hanging: Hanging,
) -> None:
    clock = Clock()
    remote = remote_key_set.RemoteKeySet(URL, fetch=hanging, clock=clock)
    assert remote.find("k", "ES256") is not None
    clock.now += remote_key_set.TTL_SECONDS
    for made_up in range(20):  # the test would hang here, were one of them to wait
        assert remote.find(f"made-up-{made_up}", "ES256") is None
        assert remote.find("k", "ES256") is not None
    until(lambda: hanging.fetches == 2)
    clock.now += remote_key_set.TTL_SECONDS
    assert remote.find("made-up", "ES256") is None
    assert hanging.fetches == 2  # the fetch that hangs is the only one
    hanging.released.set()
    until(lambda: remote.find("made-up", "ES256") is None and hanging.fetches == 3)


def test_before_the_first_set_a_token_waits_no_longer_than_allowed(hanging: Hanging) -> None:
    hanging.answers = 0
    remote = remote_key_set.RemoteKeySet(URL, fetch=hanging, first_seconds=0.01)
    for _ in range(3):
        with pytest.raises(KeySetError):
            remote.find("k", "ES256")
    assert hanging.fetches == 1
    hanging.released.set()
    until(lambda: _found(remote))


def _found(remote: remote_key_set.RemoteKeySet) -> bool:
    try:
        return remote.find("k", "ES256") is not None
    except KeySetError:
        return False


async def test_on_an_event_loop_nothing_waits_but_who_awaits_the_first_set(
    hanging: Hanging,
) -> None:
    hanging.answers = 0
    remote = remote_key_set.RemoteKeySet(URL, fetch=hanging)
    with pytest.raises(KeySetError):
        remote.find("k", "ES256")
    waiting = asyncio.ensure_future(remote.loaded())
    await asyncio.sleep(0)
    assert not waiting.done()
    hanging.released.set()
    await asyncio.wait_for(waiting, 30)
    assert remote.find("k", "ES256") is not None
    await remote.loaded()


async def test_a_first_set_that_does_not_come_is_awaited_for_a_bounded_time(
    hanging: Hanging,
) -> None:
    hanging.answers = 0
    remote = remote_key_set.RemoteKeySet(URL, fetch=hanging, first_seconds=0.01)
    await asyncio.wait_for(remote.loaded(), 30)
    with pytest.raises(KeySetError):
        remote.find("k", "ES256")


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
    hidden = _base64url(b"a-secret-in-the-key-set").decode()
    auth(JWKS={"keys": [{"kty": "oct", "kid": "k", "k": hidden}]})
    shown = repr(conf.current())
    assert KEY not in shown and hidden not in shown and "a-secret" not in shown
