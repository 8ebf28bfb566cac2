"""Why a token is refused, as exceptions with the texts that clients get.

Pure. The texts are those of the protocol, which clients recognise. `tokens` raises these errors;
callers that only answer with them need no part of JWT.
"""

from __future__ import annotations

from typing import ClassVar


class TokenError(Exception):
    """A token is refused.

    `code` and `reason` are the protocol's own texts. `str()` is both, which is the answer to a
    refused join; `handshake_reason` is the answer to a refused connection.
    """

    code: ClassVar[str] = "InvalidJWTToken"
    default_reason: ClassVar[str] = "The token is not valid"

    def __init__(self, reason: str | None = None) -> None:
        self.reason = self.default_reason if reason is None else reason
        super().__init__(f"{self.code}: {self.reason}")

    @property
    def handshake_reason(self) -> str:
        return self.reason


class InvalidToken(TokenError):
    """The token is well formed and well signed, and its claims are not acceptable."""


class ExpiredToken(InvalidToken):
    """The token was valid until `seconds` ago."""

    def __init__(self, seconds: int) -> None:
        """`seconds`: whole seconds since the expiry."""
        self.seconds = seconds
        super().__init__(f"Token has expired {seconds} seconds ago")

    @property
    def handshake_reason(self) -> str:
        return "Token has expired"


class RevokedToken(InvalidToken):
    """The project's list of refused tokens has the token, or does not answer."""

    default_reason = "Token has been revoked"


class MalformedToken(TokenError):
    """The text is not a JWT."""

    code = "MalformedJWT"
    default_reason = "The token provided is not a valid JWT"


class SignatureRefused(TokenError):
    """No configured key made the signature."""

    code = "JwtSignatureError"
    default_reason = "Failed to validate JWT signature"


class SignerUnavailable(TokenError):
    """There is no key for the token: its algorithm is not allowed, its key name is not known, or
    the key set could not be read."""

    code = "JwtSignerError"
    default_reason = "Failed to generate JWT signer, check your JWT secret or JWKS configuration"
