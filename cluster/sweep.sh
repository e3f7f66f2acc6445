#!/bin/sh
# usage: sweep.sh SPACE NAME STORAGE [OPTIONS of `dpsweep run`]
#
# Begins the sweep NAME on the Ray that runs here, or goes on with it where STORAGE has it already: what starts this again
# after a lost node or a time limit (a RayJob's backoffLimit, Slurm's requeue) need not know how far the sweep was.
# Where STORAGE is a bucket's URI, --state DIR stands among the options, and every node that may run this sees DIR.
set -eu
test $# -ge 3 || { sed -n 's/^# usage/usage/p' "$0" >&2; exit 2; }
space=$1 name=$2 storage=$3
shift 3
case $storage in
  *://*) begun() { dpsweep status "$name" --storage "$storage" >/dev/null 2>&1; } ;;
  *) begun() { test -f "$storage/$name/spec.json"; } ;;
esac
if begun; then
  exec dpsweep resume "$name" --storage "$storage"
fi
exec dpsweep run "$space" --name "$name" --storage "$storage" --address auto "$@"
