"""`python -m pipeline` is `bitsum`."""

import sys

from pipeline.cli import main

sys.exit(main())
