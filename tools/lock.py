"""Resolves the dependencies of pyproject.toml into the lock files, without naming where they come from."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools import setup

LOCKS = {
    "requirements.lock": ["pyproject.toml"],
    "requirements-provision.lock": ["pyproject.toml", "--extra", "provision"],
    "requirements-dev.lock": ["pyproject.toml", "--extra", "provision", "--extra", "dev"],
    "requirements-typings.lock": ["tools/typings.in"],
}


def main() -> int:
    """Writes every lock file."""
    uv = setup.get_uv()
    environment = {**os.environ, **setup.uv_environment()}
    # An index beside the first one may hold a few files of a version only; a lock must list the hashes of all.
    environment = {key: value for key, value in environment.items() if key not in {"UV_INDEX", "UV_FIND_LINKS"}}
    for name, sources in LOCKS.items():
        command: list[str | Path] = [
            uv,
            "pip",
            "compile",
            "--quiet",
            "--universal",
            "--python-version",
            "3.11",
            "--generate-hashes",
            "--no-header",
            "--no-emit-index-url",
            "--no-emit-find-links",
            "--no-annotate",
            "--upgrade",
            *sources,
            "-o",
            name,
        ]
        status = subprocess.run(command, check=False, env=environment, cwd=setup.PROJECT).returncode
        if status:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main())
