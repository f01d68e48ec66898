# shellcheck shell=bash
# Makes .venv in the repository and installs the package into it; sourced by the other scripts.
# Usage: make_venv [EXTRA]
# PYTHON chooses the interpreter (3.11 or newer; python3 if unset).

make_venv() {
  local extra="${1:-}" python="${PYTHON:-python3}" stamp
  cd "$(dirname "${BASH_SOURCE[0]}")/.." || return
  if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "eejax needs Python 3.11 or newer; $python is $("$python" -V 2>&1). Set PYTHON." >&2
    return 2
  fi
  [ -x .venv/bin/python ] || "$python" -m venv .venv
  # Installed again only when what is to be installed has changed.
  stamp=".venv/.installed-${extra:-plain}"
  if ! cmp -s <(cat pyproject.toml constraints.txt) "$stamp"; then
    echo "installing eejax${extra:+[$extra]} into .venv ..."
    .venv/bin/python -m pip install --quiet --disable-pip-version-check \
      --constraint constraints.txt --editable ".${extra:+[$extra]}"
    cat pyproject.toml constraints.txt > "$stamp"
  fi
}
