"""``python -m hgscale`` is the command ``hgscale``."""

import sys

from hgscale.cli import main

sys.exit(main())
