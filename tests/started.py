"""Short-lived processes of the project, with a clean environment."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Set by `make coverage`.
COVERAGE = {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")}


def run(folder: Path, *command: str, before: Sequence[str] = (), **variables: str) -> subprocess.CompletedProcess[str]:
    """Run Python in the project with only these variables, and its data in `folder`.

    before: a command that starts Python in another way.
    """
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    usual = {"DATA_DIR": str(folder / "data"), "LOG_DIR": "", "DJANGO_SETTINGS_MODULE": "keymanager.settings"}
    return subprocess.run(
        [*before, sys.executable, *command],
        cwd=ROOT,
        env=kept | COVERAGE | usual | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
