"""The whole system on one machine: its own certificate authority, two stations, three virtual buttons."""
