#!/usr/bin/env bash
# Set up, then run a small study: errors over two decades of samples, beside their floor. Options go to `hgscale study`.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_setup.sh"
hgscale study --config configs/study/quickstart.yaml "$@"
