"""`make simulate-firmware`: one button, with its real session."""

import sys

from tests.simulation import command

sys.exit(command.main("tests.firmware.simulation", "simulate-firmware"))
