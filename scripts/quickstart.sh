#!/usr/bin/env bash
# From a fresh clone to the whole life cycle on real digits: makes .venv, installs, runs, reports.
# Arguments are passed on, such as --workdir DIR or --config.seed=1.
set -euo pipefail
# shellcheck source=scripts/venv.sh
source "$(dirname "${BASH_SOURCE[0]}")/venv.sh"
make_venv
exec .venv/bin/eejax run configs/lifecycle_mnist.py "$@"
