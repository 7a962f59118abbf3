"""Short-lived processes of the project, with a clean environment."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def run(folder: Path, *command: str, before: Sequence[str] = (), **variables: str) -> subprocess.CompletedProcess[str]:
    """Run Python in the project with only these variables, and its data in `folder`.

    before: a command that starts Python in another way.
    """
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME") or "COVERAGE_" in name}
    usual = {"DATA_DIR": str(folder / "data"), "LOG_DIR": "", "DJANGO_SETTINGS_MODULE": "keymanager.settings"}
    return subprocess.run(
        [*before, sys.executable, *command],
        cwd=ROOT,
        env=kept | usual | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
