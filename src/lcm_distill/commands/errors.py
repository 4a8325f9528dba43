"""How a command ends: one line and an exit code for what a user can cause, 130 for Ctrl-C."""

import os
import sys
from types import TracebackType

from lcm_distill.core.errors import StorageError, UserError


class one_line_errors:
    """Ends the process with one line on standard error for an error that a user can cause."""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, UserError):
            print(f"lcm: {error}", file=sys.stderr)
            raise SystemExit(error.exit_code) from None
        if isinstance(error, KeyboardInterrupt):
            print("lcm: interrupted; the same command resumes from here", file=sys.stderr)
            sys.stderr.flush()
            os._exit(130)  # threads of native libraries would delay an ordinary exit
        if isinstance(error, OSError):
            where = f"{error.filename}: " if error.filename is not None else ""
            print(f"lcm: {where}{error.strerror or error}", file=sys.stderr)
            raise SystemExit(StorageError.exit_code) from None
