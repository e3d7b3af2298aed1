"""What the board boots into."""

from firmware import slots

slots.start()
