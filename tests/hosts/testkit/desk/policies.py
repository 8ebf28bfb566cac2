from __future__ import annotations

from django.db.models import Q

from auth_rls import declare_policy

declare_policy("owners", "desk.view_ticket", using=Q(owner="$user.id"), audience="authenticated")
