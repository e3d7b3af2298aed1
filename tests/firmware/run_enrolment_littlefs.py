"""`enrolment.complete` on a real LittleFS, cut at every program and erase operation of the flash; for real MicroPython.

The board's files are in the working directory: an active identity with state, and another one waiting. Prints "passed"
and the number of cuts when the board was the old button, the new one or none each time, and completing again ended well.
"""

import os

from firmware import certificate, enrolment, keys, p256
from tests.firmware.nor_flash import Chip, formatted, mounted, unmounted

FOLDERS = ("identity", "identity.new", "state")
files = {}
for folder in FOLDERS:
    for name in os.listdir(folder):
        with open(folder + "/" + name, "rb") as file:
            files[folder + "/" + name] = file.read()
with open("settings.json", "rb") as file:
    files["settings.json"] = file.read()
OLD = files["settings.json"]
NEW = files["identity.new/settings.json"]


def read(path):
    """The octets of a file; None when there is none."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return None


def check():
    """Old, new or none: never a mixture."""
    settings = read("settings.json")
    if settings is None:
        return
    whose = "identity" if settings == OLD else "identity.new"
    assert settings in (OLD, NEW)
    for name in ("key.der", "cert.der", "ca.der"):
        assert read("identity/" + name) == files[whose + "/" + name], (whose, name)
    assert (read("state/boot-a") is None) == (whose == "identity.new")


def cut_after(octets, operations):
    """Completes with the power gone after so many operations; whether it came to its end."""
    chip = Chip(bytearray(octets))
    mounted(chip)
    chip.left = operations
    done = True
    try:
        enrolment.complete()
    except OSError:
        done = False
    chip.left = 1 << 30
    unmounted()
    mounted(Chip(chip.octets))
    check()
    name = enrolment.complete()
    assert read("settings.json") == NEW
    check()
    found, point = certificate.of_certificate(read("identity/cert.der"))
    assert found == name and point == p256.public(keys.private_number(read("identity/key.der")))
    assert sorted(os.listdir()) == ["identity", "settings.json", "state"], os.listdir()
    unmounted()
    return done


fresh = formatted()
mounted(fresh)
for folder in FOLDERS:
    os.mkdir(folder)
for path in files:
    with open(path, "wb") as file:
        file.write(files[path])
check()
unmounted()
cuts = 0
while not cut_after(fresh.octets, cuts):
    cuts += 1
print("passed", cuts)
