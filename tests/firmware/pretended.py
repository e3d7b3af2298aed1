"""A button's board and settings, for runs in which only its conduct counts. Runs on MicroPython."""

from firmware import settings


class Board:
    """Nothing to read, nobody to tell."""

    SAMPLE_MS = 10
    reset_cause = 1
    version = "test"

    def tell(self, name, value, **more):
        """Nobody listens."""

    def readings(self):
        """At rest."""
        return 340, 610, 340

    def battery_mv(self):
        return 4050

    def mains(self):
        return True

    def rssi(self):
        return None


def settings_of(name):
    """A button's settings; nothing in them is connected to."""
    point = "04" + "11" * 64
    brokers = [["127.0.0.1", 1, "khi-cn"]]
    return settings.Settings({"id": name, "board": "virtual", "brokers": brokers, "hq": "hq", "hq_message_key": point})
