#!/usr/bin/env bash
# Set up, then pre-train on one small world and recover it. Options go to `hgscale pretrain`.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_setup.sh"
hgscale pretrain --config configs/pretrain/quickstart.yaml "$@"
