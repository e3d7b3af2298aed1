"""`python -m hardware` writes BOM.md and WIRING.md; `--check` only says, with a diff, whether they are stale."""

import argparse
import difflib
import sys
from pathlib import Path

from hardware import build as building
from hardware.pages import pages
from hardware.source import FOLDER


def main(arguments: list[str] | None = None, folder: Path = FOLDER) -> int:
    """Exit status 0: all is well; 1: the sources contradict each other, or with `--check` a page is stale."""
    parser = argparse.ArgumentParser(prog="python -m hardware", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail with a diff when a page is stale")
    only_check = parser.parse_args(arguments).check

    build = building.read()
    violations = building.check(build)
    if violations:
        sys.stderr.write("\n".join(violations) + "\n")
        return 1

    stale = False
    for name, fresh in pages(build).items():
        page = folder / name
        if not only_check:
            page.write_text(fresh, encoding="utf-8")
            continue
        found = page.read_text(encoding="utf-8") if page.exists() else ""
        diff = list(
            difflib.unified_diff(found.splitlines(), fresh.splitlines(), name, f"{name} from the sources", lineterm="")
        )
        stale = stale or found != fresh
        sys.stdout.write("".join(line + "\n" for line in diff))
    return int(stale)


if __name__ == "__main__":
    sys.exit(main())
