"""A station: the same program at a site and at headquarters. `station.py` shows how its parts fit."""
