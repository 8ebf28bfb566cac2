"""Policies combined: which rules count for a subject, and what they say together.

PostgreSQL's semantics: a row passes when at least one permissive rule lets it and every
restrictive one does. Without a permissive rule nothing passes.

Pure: no Django, no I/O. Where rules come from and who holds a permission are for the caller.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from auth_rls.predicates.predicate import FALSE, All, Any_, Predicate


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """One policy, parsed.

    `audience` is "permission" (who holds the Django permission), "authenticated" or "anyone";
    `mode` is "permissive" or "restrictive". `using` is about the row as it stands, `with_check`
    about the new row; None means the same as `using`.
    """

    name: str
    audience: str
    mode: str
    using: Predicate
    with_check: Predicate | None = None

    def concerns(self, *, holds_permission: bool, authenticated: bool) -> bool:
        """Whether the rule is about such a subject. An audience that is not known is nobody
        for a permissive rule and everybody for a restrictive one."""
        if self.audience == "anyone":
            return True
        if self.audience == "authenticated":
            return authenticated
        if self.audience == "permission":
            return holds_permission
        return self.mode != "permissive"

    def predicate(self, *, new_row: bool) -> Predicate:
        """What the rule asks of the row as it stands, or of the new row."""
        return self.with_check if new_row and self.with_check is not None else self.using


def combine(
    rules: Iterable[PolicyRule],
    *,
    holds_permission: bool,
    authenticated: bool,
    new_row: bool = False,
) -> Predicate:
    """What the rules of one action on one table ask together of a row.

    `new_row` asks for the new row of an add or change instead of the row as it stands. The
    result is neither bound nor simplified.
    """
    permissive: list[Predicate] = []
    restrictive: list[Predicate] = []
    for rule in rules:
        if rule.concerns(holds_permission=holds_permission, authenticated=authenticated):
            chosen = permissive if rule.mode == "permissive" else restrictive
            chosen.append(rule.predicate(new_row=new_row))
    if not permissive:
        return FALSE
    return All((Any_(tuple(permissive)), *restrictive))
