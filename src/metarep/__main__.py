"""``python -m metarep`` is ``metarep``."""

import sys

from metarep.cli import main

if __name__ == "__main__":
    sys.exit(main())
