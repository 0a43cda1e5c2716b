"""Run the Python blocks of a page, one a line of JSON from standard input, in one namespace."""

from __future__ import annotations

import contextlib
import io
import json
import sys
import traceback


def main() -> None:
    """Read ``{"source", "name"}``, answer ``{"output", "failed"}``."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    answers = sys.stdout
    for line in sys.stdin:
        block = json.loads(line)
        printed = io.StringIO()
        failed = False
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            try:
                exec(compile(block["source"], block["name"], "exec"), namespace)
            except BaseException:  # noqa: BLE001 -- told to the test
                failed = True
                traceback.print_exc()
        print(json.dumps({"output": printed.getvalue(), "failed": failed}), file=answers)
        answers.flush()


if __name__ == "__main__":
    main()
