"""`python -m acclimate.cli`."""

import sys

from acclimate.cli import main

sys.exit(main())
