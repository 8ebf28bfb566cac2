"""The admin of policies: their form, and the pages that explain and try them.

Decides no verdict: each comes from `auth_rls.explain`.
"""

from __future__ import annotations

# Importing the module registers its admin.
from auth_rls.admin import policies as policies
