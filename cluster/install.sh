#!/bin/sh
# Installs dpsweep on one node, from the folder that the launcher copied here, into ~/.dpsweep/venv, and puts that first
# on PATH for the shells in which Ray runs commands (they read ~/.bashrc). Run again, it changes what has changed.
#
# The versions are those of constraints.txt. Where the node has no such Python, uv brings one.
set -eu
source_dir=$(cd "$(dirname "$0")/.." && pwd)
pins=$source_dir/cluster/constraints.txt
venv=$HOME/.dpsweep/venv
version=$(sed -n 's/^# python //p' "$pins")

if ! test -x "$venv/bin/python"; then
  mkdir -p "$HOME/.dpsweep"
  if command -v "python$version" >/dev/null; then
    "python$version" -m venv "$venv"
  else
    python3 -m venv "$HOME/.dpsweep/uv"
    "$HOME/.dpsweep/uv/bin/python" -m pip install --quiet uv
    "$HOME/.dpsweep/uv/bin/uv" venv --quiet --seed --python "$version" "$venv"
  fi
fi
"$venv/bin/python" -m pip install --quiet --constraint "$pins" --editable "$source_dir"

line="export PATH=\"$venv/bin:\$PATH\" RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0"
touch "$HOME/.bashrc"
grep -qxF "$line" "$HOME/.bashrc" || printf '%s\n' "$line" >> "$HOME/.bashrc"
chmod -f 600 "$HOME/.ray/auth_token" || { echo "install.sh: no ~/.ray/auth_token here; make it before ray up (cluster/README.md)" >&2; exit 1; }
