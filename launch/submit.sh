#!/usr/bin/env bash
# Set up, then run a verb on a Ray cluster, as in: launch/submit.sh pretrain --address http://head:8265 --config FILE ...
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_setup.sh"
hgscale submit "$@"
