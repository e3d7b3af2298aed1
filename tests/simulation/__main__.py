"""`make simulate`: the whole system."""

import sys

from tests.simulation import command

sys.exit(command.main("tests.simulation", "simulate"))
