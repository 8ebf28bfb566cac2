"""`python -m tests.acceptance.support.demo_loader`: loads the demo afresh for each line it reads.

One process for all tests of a server, as a command would take longer to start than to load.
"""

from __future__ import annotations

import sys


def main() -> None:
    import django

    django.setup()
    from django.core.management import call_command
    from django.db import connections

    for _ in sys.stdin:
        call_command("load_demo", reset=True, verbosity=0)
        # The database may be another one by the next time.
        connections.close_all()
        print("loaded", flush=True)


if __name__ == "__main__":
    main()
