"""Entry point of ``python -m fer_helpers``."""

import sys

from fer_helpers.cli import main

sys.exit(main())
