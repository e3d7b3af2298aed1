"""Holds firmware/wire.py, command.py and p256.py against tests/vectors.json; runs on both Pythons.

    micropython tests/firmware/run_vectors.py tests/vectors.json

Prints one line for each vector that fails and the number that passed; exit code 1 if any failed.
"""

import json
import sys

from firmware import command, p256, wire


def value_of(spelled):
    """The value of the vectors' JSON spelling."""
    if isinstance(spelled, list):
        return [value_of(item) for item in spelled]
    if isinstance(spelled, dict):
        if "bytes" in spelled:
            return bytes.fromhex(spelled["bytes"])
        return {key: value_of(item) for key, item in spelled["map"]}
    return spelled


def refuses(read, octets):
    """Whether `read` raises WireError and nothing else."""
    try:
        read(octets)
    except wire.WireError:
        return True
    return False


def block_cipher(key):
    """AES-256 of single blocks, on either Python."""
    try:
        return command.aes(key)
    except ImportError:
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

        return Cipher(algorithms.AES256(key), modes.ECB()).encryptor().update


def check(vectors):
    """(what, passed) of every vector."""
    key = bytes.fromhex(vectors["key"])
    kid = vectors["kid"]
    for vector in vectors["values"]:
        value, octets = value_of(vector["value"]), bytes.fromhex(vector["hex"])
        yield vector["hex"], wire.encode(value) == octets and wire.decode(octets) == value
    for vector in vectors["envelopes"]:
        message, octets = value_of(vector["message"]), bytes.fromhex(vector["hex"])
        envelope = wire.unseal(octets)
        right = envelope.message == message and envelope.kid == kid and envelope.sealed_with(key)
        yield vector["hex"], wire.seal(message, kid, key) == octets and right and not envelope.sealed_with(bytes(32))
    for vector in vectors["refused_cbor"]:
        yield vector["what"], refuses(wire.decode, bytes.fromhex(vector["hex"]))
    for vector in vectors["refused_envelopes"]:
        yield vector["what"], refuses(wire.unseal, bytes.fromhex(vector["hex"]))
    for vector in vectors["networks"]:
        network, octets = (vector["name"], vector["password"]), bytes.fromhex(vector["hex"])
        secret = wire.command_key(key)
        plain = wire.masked(octets, vector["boot"], vector["seq"], block_cipher(secret))
        right = secret.hex() == vector["key"] and command.unpacked(plain) == network
        yield vector["hex"], right and command.packed(network) == plain
    for vector in vectors["message_keys"]:
        shared = p256.shared(int(vector["private"], 16), bytes.fromhex(vector["point"]))
        key = wire.message_key(shared, vector["child"], vector["parent"])
        yield vector["private"], (shared.hex(), key.hex()) == (vector["shared"], vector["key"])


def main(path):
    """The exit code."""
    with open(path) as file:
        results = list(check(json.load(file)))
    failed = [what for what, passed in results if not passed]
    for what in failed:
        print("failed:", what)
    print(len(results) - len(failed), "passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
