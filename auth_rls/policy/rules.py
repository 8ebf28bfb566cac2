"""Rules of policies: which of them concern a subject, and their combination.

PostgreSQL's semantics: a row passes if at least one permissive rule and every restrictive rule is
true of it. Without a permissive rule no row passes.

Pure: no Django, no I/O. The caller passes the rules, and whether the subject has the permission.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from auth_rls.predicates.predicate import FALSE, All, Any_, Predicate


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """One policy, parsed.

    `audience` is "permission" (holders of the Django permission), "authenticated" or "anyone";
    `mode` is "permissive" or "restrictive". `using` is about the stored row, `with_check` about
    the new row; None means the same as `using`.
    """

    name: str
    audience: str
    mode: str
    using: Predicate
    with_check: Predicate | None = None

    def concerns(self, *, holds_permission: bool, authenticated: bool) -> bool:
        """Whether the rule concerns such a subject. With an unknown audience a permissive rule
        concerns nobody and a restrictive one everybody."""
        if self.audience == "anyone":
            return True
        if self.audience == "authenticated":
            return authenticated
        if self.audience == "permission":
            return holds_permission
        return self.mode != "permissive"

    def predicate(self, *, new_row: bool) -> Predicate:
        """The rule's condition on the stored row, or on the new row."""
        return self.with_check if new_row and self.with_check is not None else self.using


def combine(
    rules: Iterable[PolicyRule],
    *,
    holds_permission: bool,
    authenticated: bool,
    new_row: bool = False,
) -> Predicate:
    """The condition of the rules of one action on one table, taken together.

    With `new_row` it is about the new row of an add or change, else about the stored row. The
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
