"""`python -m fraiseql_subs`: the command line."""

import sys

from .cli import main

sys.exit(main())
