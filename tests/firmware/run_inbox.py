"""What `mqtt.Inbox` makes of streams of octets; runs on both Pythons, without a test framework.

In, on standard input: a JSON list of streams, each a list of hexadecimal pieces. Out: a JSON list of lists of packets, the
last of which is a string if the stream was refused.
"""

import json
import sys

from firmware import mqtt

inbox = mqtt.Inbox()  # one for all streams: hundreds of its buffers would cut a small heap into pieces


def packets(pieces: list[bytes]) -> list[object]:
    """The packets of a stream that arrives in `pieces`."""
    inbox.clear()
    found: list[object] = []
    try:
        for piece in pieces:
            while piece:
                room = inbox.room()
                n = min(len(room), len(piece))
                room[:n] = piece[:n]
                inbox.took(n)
                piece = piece[n:]
                packet = inbox.packet()
                while packet is not None:
                    found.append([part.hex() if isinstance(part, bytes) else part for part in packet])
                    packet = inbox.packet()
    except mqtt.MqttError as problem:
        found.append(str(problem))
    return found


if __name__ == "__main__":
    streams = json.loads(sys.stdin.read())
    print(json.dumps([packets([bytes.fromhex(piece) for piece in stream]) for stream in streams]))
