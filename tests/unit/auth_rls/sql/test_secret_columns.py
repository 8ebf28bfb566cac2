"""Which columns hold secrets, by class, model and name."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.sessions.base_session import AbstractBaseSession
from django.db import models
from django.db.models.functions import Lower
from django.test.utils import isolate_apps

from auth_rls.sql.secret_columns import is_secret


def model_with(name: str = "Thing", /, **fields: models.Field[Any, Any]) -> type[models.Model]:
    """A model of these fields, known to no registry."""
    with isolate_apps("tests.zoo"):
        meta = type("Meta", (), {"app_label": "zoo"})
        return type(name, (models.Model,), {**fields, "__module__": __name__, "Meta": meta})


def secrets(model: type[models.Model]) -> list[str]:
    return [field.name for field in model._meta.local_concrete_fields if is_secret(field)]


@pytest.mark.parametrize(
    "name",
    [
        *("password", "passwd", "password_hash", "old_password", "passphrase", "pwd"),
        *("userPassword", "PASSWORD"),
        *("token", "access_token", "refreshToken", "csrf_token", "jwt", "tokens"),
        *("secret", "client_secret", "otp_secret", "webhook_secret", "secrets"),
        *("api_key", "apikey", "APIKey", "private_key", "signing_key", "hashed_key", "ssh_key"),
        *("session_key", "session_data", "sessionid"),
        *("otp", "totp", "backup_codes", "recovery_code", "reset_code", "magic_link", "pin"),
        *("credentials", "security_answer", "salt", "cvv"),
        *("authkey", "csrftoken", "newpassword", "pwhash", "accesskey", "secretanswer"),
        *("pass", "db_pass", "pass_hash", "session_id", "cookie", "authorization", "key_hash"),
        *("seed_phrase", "private_pem", "rsa_key", "psk", "connection_string", "database_url"),
        *("auth_header", "reset_link", "invite_link", "secret_word", "secret_answer"),
        *("secret_header", "one_time_link", "one_time_key", "login_one_time_code"),
        *("one_time_code", "sms_code", "mfa_code", "device_code", "code_verifier", "passwort"),
    ],
)
def test_a_text_named_like_a_secret_is_one(name: str) -> None:
    assert secrets(model_with(**{name: models.TextField()})) == [name]


@pytest.mark.parametrize(
    "name",
    [
        *("name", "key", "code", "data", "hash_tag", "author", "authority", "passport", "keyboard"),
        *(
            "secretary",
            "tokenizer",
            "session",
            "session_title",
            "postal_code",
            "zip_code",
            "digest",
        ),
        *(
            "authorization_status",
            "boarding_pass",
            "keyword",
            "key_word",
            "device_link",
            "passenger",
        ),
        *("cookie_policy", "password_policy", "encrypted_by", "token_at", "one_time", "key_answer"),
        *("client_header", "license_header", "code_link", "share_link", "session_link"),
        *("private_note", "shared_with", "public_key", "keynote", "pinned", "compass", "content"),
    ],
)
def test_a_text_of_another_name_is_none(name: str) -> None:
    assert secrets(model_with(**{name: models.TextField()})) == []


@pytest.mark.parametrize(
    "name, field",
    [
        ("token_count", models.IntegerField()),
        ("tokens", models.BigIntegerField()),
        ("has_password", models.BooleanField()),
        ("password_changed_at", models.DateTimeField()),
        ("secret_until", models.DateField()),
        ("token_price", models.DecimalField(max_digits=9, decimal_places=2)),
        ("otp_attempts", models.IntegerField()),
        ("postal_code", models.IntegerField()),
        ("device_code", models.IntegerField()),
        ("license_code", models.BigIntegerField()),
        ("session_id", models.UUIDField()),
        ("game_session_id", models.UUIDField()),
    ],
)
def test_numbers_of_something_moments_keys_and_truth_values_are_no_secrets(
    name: str, field: models.Field[Any, Any]
) -> None:
    assert secrets(model_with(**{name: field})) == []


@pytest.mark.parametrize("name", ["pin", "otp", "login_otp", "verification_code", "reset_pin"])
def test_a_number_that_lets_in_is_a_secret(name: str) -> None:
    assert secrets(model_with(**{name: models.IntegerField()})) == [name]


@pytest.mark.parametrize(
    "field",
    [
        models.CharField(max_length=40),
        models.BinaryField(),
        models.UUIDField(),
        models.JSONField(),
        models.SlugField(),
    ],
)
def test_a_secret_may_be_stored_as_anything(field: models.Field[Any, Any]) -> None:
    assert secrets(model_with(auth_token=field)) == ["auth_token"]


def test_the_column_s_name_counts_beside_the_field_s() -> None:
    assert secrets(model_with(handle=models.TextField(db_column="api_token"))) == ["handle"]


def test_a_class_that_encrypts_says_that_its_field_is_a_secret() -> None:
    class EncryptedTextField(models.TextField):
        pass

    class Diary(EncryptedTextField):
        pass

    assert secrets(model_with(diary=Diary(), note=models.TextField())) == ["diary"]


@pytest.mark.parametrize("name", ["Token", "AccessToken", "APIKey", "TOTPDevice", "Invitation"])
def test_what_a_model_of_secrets_calls_by_a_plain_name_is_one(name: str) -> None:
    model = model_with(name, key=models.TextField(), title=models.TextField())
    assert secrets(model) == ["key"]


def test_a_key_that_points_to_a_secret_is_one_and_a_key_that_points_to_its_owner_is_none() -> None:
    with isolate_apps("tests.zoo"):

        class Token(models.Model):
            key = models.CharField(max_length=40, primary_key=True)

            class Meta:
                app_label = "zoo"

        class Owner(models.Model):
            class Meta:
                app_label = "zoo"

        class Use(models.Model):
            token = models.ForeignKey(Token, models.CASCADE, related_name="+")
            secret_owner = models.ForeignKey(Owner, models.CASCADE, related_name="+")

            class Meta:
                app_label = "zoo"

        assert secrets(Use) == ["token"]


def test_what_the_database_computes_from_a_secret_is_one() -> None:
    computed = models.GeneratedField(
        expression=Lower("api_token"), output_field=models.TextField(), db_persist=True
    )
    model = model_with(api_token=models.TextField(), folded=computed)
    assert sorted(secrets(model)) == ["api_token", "folded"]


def test_a_user_s_password_and_a_session_s_key_and_data_are_secrets() -> None:
    with isolate_apps("tests.zoo"):

        class Account(AbstractBaseUser):
            email = models.EmailField(unique=True)
            USERNAME_FIELD = "email"

            class Meta:
                app_label = "zoo"

        class Visit(AbstractBaseSession):
            class Meta:
                app_label = "zoo"

        assert secrets(Account) == ["password"]
        assert secrets(Visit) == ["session_key", "session_data"]
