"""What tests of tokens and keys share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from tests.support.signing import KEY


@pytest.fixture(scope="session")
def private() -> dict[str, Any]:
    """A private key for each algorithm."""
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


@pytest.fixture
def auth(settings: Any) -> Callable[..., None]:
    """Sets AUTH_RLS; without a call it holds the key alone."""

    def configure(**keys: Any) -> None:
        settings.AUTH_RLS = {"JWT_KEY": KEY, **keys}

    configure()
    return configure
