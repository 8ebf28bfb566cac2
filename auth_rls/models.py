"""The policy as a row, edited in the admin.

A policy narrows a Django permission to rows. `save()` refuses what the admin's form refuses.
Fixtures, bulk operations and migrations are not checked, because they may run before the migration
of the model that the policy is about; a policy that cannot be used denies wherever it is applied.
"""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import Permission
from django.core.exceptions import ValidationError
from django.db import models
from django.utils.translation import gettext_lazy as _

from auth_rls.policy.database_check import typed
from auth_rls.policy.definition import Definition, PolicyProblem, understand
from auth_rls.sql.primary import primary

# The fields by which a policy decides.
_MEANING = frozenset(
    {"name", "permission", "permission_id", "audience", "mode", "using", "with_check", "enabled"}
)


class Policy(models.Model):
    """The rows that a permission is about, for an audience."""

    class Audience(models.TextChoices):
        PERMISSION = "permission", _("permission holders")
        AUTHENTICATED = "authenticated", _("logged-in users")
        ANYONE = "anyone", _("anyone")

    class Mode(models.TextChoices):
        PERMISSIVE = "permissive", _("permissive")
        RESTRICTIVE = "restrictive", _("restrictive")

    name = models.CharField(_("name"), max_length=200, unique=True)
    permission = models.ForeignKey(
        Permission,
        models.CASCADE,
        related_name="row_policies",
        verbose_name=_("permission"),
        help_text=_("View, add, change or delete of the model whose rows are meant."),
    )
    audience = models.CharField(
        _("audience"),
        max_length=13,
        choices=Audience.choices,
        default=Audience.PERMISSION,
        help_text=_("Who is concerned. Holders have the permission themselves or through a group."),
    )
    mode = models.CharField(
        _("mode"),
        max_length=11,
        choices=Mode.choices,
        default=Mode.PERMISSIVE,
        help_text=_(
            "One permissive policy is enough to let a row through; "
            "every restrictive one must agree as well."
        ),
    )
    using = models.JSONField(
        _("using"),
        null=True,
        blank=True,
        default=None,
        help_text=_("The row as it stands: which rows may be viewed, changed or deleted."),
    )
    with_check = models.JSONField(
        _("with check"),
        null=True,
        blank=True,
        default=None,
        help_text=_("The new row of an add or a change. Empty: the same as “using”."),
    )
    enabled = models.BooleanField(_("enabled"), default=True)

    class Meta:
        verbose_name = _("policy")
        verbose_name_plural = _("policies")
        ordering = ["permission__content_type__app_label", "permission__codename", "name"]

    def __str__(self) -> str:
        return self.name

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Raises ValidationError, on the field at fault, for a policy that cannot be used. One that
        cannot be used any more may be switched off."""
        named = kwargs.get("update_fields")
        switched_off = named is not None and {*named} == {"enabled"} and not self.enabled
        if not switched_off and (named is None or {*named} & _MEANING):
            # The database checks that the permission exists and that the name is new.
            self.full_clean(
                exclude={"permission"}, validate_unique=False, validate_constraints=False
            )
        super().save(*args, **kwargs)

    def definition(self) -> Definition:
        """The policy as a value, whether it is enabled or not."""
        permission = self._permission()
        return Definition(
            name=self.name,
            permission=f"{permission.content_type.app_label}.{permission.codename}",
            audience=self.audience,
            mode=self.mode,
            using=self.using,
            with_check=self.with_check,
            content_type=permission.content_type.model,
        )

    def _permission(self) -> Permission:
        """The permission with its content type: as loaded, else read from the primary. Reading
        through the relation could go to a replica."""
        if "permission" in self._state.fields_cache:
            permission: Permission = self.permission
            if "content_type" in permission._state.fields_cache:
                return permission
        named = Permission.objects.using(primary(Permission, self)).select_related("content_type")
        return named.get(pk=self.permission_id)

    def problem(self) -> PolicyProblem | None:
        """Why the policy cannot be used, or None when it can."""
        definition = self.definition()
        typed([definition])
        try:
            understand(definition)
        except PolicyProblem as problem:
            return problem
        return None

    def clean(self) -> None:
        """Raises ValidationError, on the field at fault, for a policy that cannot be used."""
        super().clean()
        errors: dict[str, Any] = {}
        from auth_rls.policy.declared import declared_policies

        if any(declared.name == self.name for declared in declared_policies()):
            errors["name"] = _("A policy declared in code already has this name.")
        if self.permission_id is not None:
            problem = self.problem()
            if problem is not None:
                errors[problem.field] = problem.message
        if errors:
            raise ValidationError(errors)
