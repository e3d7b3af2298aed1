"""`python -m tests.console [port]`: the console over a stand-in desk, to look at; an alarm with every Enter."""

from __future__ import annotations

import itertools
import sys

from tests.console.desk import CARS, GATE, HOSTILE, PASSWORD, PEOPLE, VISA, furnished, serving


def main() -> None:
    """Serves until end of file or Ctrl-C."""
    desk = furnished()
    with serving(desk, int(sys.argv[1]) if len(sys.argv) > 1 else None) as server:
        sys.stdout.write(f"{server.url}  {' or '.join(PEOPLE)}, password: {PASSWORD}\nEnter: an alarm\n")
        sys.stdout.flush()
        places = itertools.cycle((GATE, VISA, CARS, HOSTILE))
        for _ in sys.stdin:
            place = next(places)
            desk.press(place, f"{place.site}-{place.entrance}")


if __name__ == "__main__":
    main()
