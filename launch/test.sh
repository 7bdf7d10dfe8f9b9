#!/usr/bin/env bash
# Set up, then run every check and the tests. Options go to pytest.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_setup.sh"
ruff check
ruff format --check
mypy
lint-imports
pytest "$@"
