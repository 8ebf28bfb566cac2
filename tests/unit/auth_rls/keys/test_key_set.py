"""Sets of keys: which key checks a token, and for which algorithm."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed448, rsa

from auth_rls.keys.key_set import KeySet
from auth_rls.subjects import tokens
from tests.support.signing import (
    BAD_SIGNATURE,
    GOOD,
    NO_SIGNER,
    NOW,
    base64url,
    public_jwk,
    refusal,
    signed,
)

pytestmark = pytest.mark.usefixtures("auth")


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
            base64url(part) for part in (b'{"alg":"HS256","kid":"k"}', json.dumps(GOOD).encode())
        )
        forged = message + b"." + base64url(hmac.new(form, message, hashlib.sha256).digest())
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
    jwk = {"kty": "oct", "kid": "old", "k": base64url(other.encode()).decode()}
    auth(JWKS={"keys": [jwk]})
    assert tokens.verify(signed(key=other, kid="old"), now=NOW)
    assert tokens.verify(signed(kid="unknown"), now=NOW)
    assert tokens.verify(signed(), now=NOW)
    assert refusal(signed(kid="old")) == BAD_SIGNATURE
    assert refusal(signed(key=other)) == BAD_SIGNATURE
