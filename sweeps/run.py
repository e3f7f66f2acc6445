"""What `ray submit cluster/CLUSTER.yaml sweeps/run.py -- ARGS` runs: `dpsweep run ARGS` on the head of a cluster.

Ray starts the script in the home folder of the head and joins its arguments without quotes. So imports are absolute, `--storage` must be
absolute, and `--set` values must not have spaces. The sweep joins the cluster that it runs on (`--address auto`). `resume NAME --storage
DIR` instead of a space resumes a sweep whose driver has ended.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from sweeps.cli import build_parser, execute, remote_command


def main(argv: Sequence[str] | None = None) -> int:
    """Runs or resumes one sweep on the running cluster and returns the exit code."""
    return execute(build_parser(address="auto"), remote_command(sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    sys.exit(main())
