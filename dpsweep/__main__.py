"""The door of the command line: `dpsweep` and `python -m dpsweep`.

It looks at the neighbours before it imports them, so that a stranger in their place is one message and not a traceback.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from dpsweep.neighbours import ForeignPackage, changed_files, check_neighbours


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code; 1 where a package of dpsweep's was replaced."""
    try:
        check_neighbours()
        try:
            from sweeps.cli import main as command_line
        except (ImportError, AttributeError):
            changed = changed_files()
            if not changed:
                raise
            raise ForeignPackage("\n".join(changed)) from None
    except ForeignPackage as error:
        print(f"dpsweep: {error}", file=sys.stderr)
        return 1
    return command_line(argv)


if __name__ == "__main__":
    sys.exit(main())
