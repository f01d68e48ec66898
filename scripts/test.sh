#!/usr/bin/env bash
# All checks and tests, in the project's own .venv. Arguments go to pytest, such as -m slow.
set -euo pipefail
# shellcheck source=scripts/venv.sh
source "$(dirname "${BASH_SOURCE[0]}")/venv.sh"
make_venv test
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/lint-imports
# A process that crashes is not replaced: pytest-xdist may wait for its files for ever.
exec .venv/bin/python -m pytest --numprocesses "${TEST_PROCESSES:-2}" --dist loadfile \
  --max-worker-restart 0 "$@"
