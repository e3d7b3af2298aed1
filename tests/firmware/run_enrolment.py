"""Makes keys and requests on real MicroPython, in the working directory, after the known answers of P-256.

Prints "key", the private key and the request, in hex, for each of the ids that come as arguments.
"""

import os
import sys

from firmware import der, ecdsa, enrolment, p256
from tests.firmware import p256_known

p256_known.check(p256, ecdsa, der)
for name in sys.argv[1:]:
    wanted = enrolment.request(name)
    assert enrolment.request(name) == wanted
    assert enrolment.state() == {"id": None, "pending": name, "point": None}, enrolment.state()
    with open("identity.new/key.der", "rb") as file:
        key = file.read()
    assert sorted(os.listdir("identity.new")) == ["key.der", "request.der"]
    print("key", key.hex(), wanted.hex())
enrolment.erase()
assert "identity.new" not in os.listdir()
print("passed")
