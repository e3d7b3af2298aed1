"""What a hostile broker says after it has accepted a button, drawn from a seed. Runs on both Pythons, with the same result."""

_MASK = 0xFFFFFFFF
_SPARE = (b"\xd0\x00", b"\x40\x02\x00\x01", b"\x20\x02\x00\x00", b"\x90\x03\x00\x01\x01", b"\xc0\x00", b"\xe0\x00")


class Draw:
    """Xorshift, 32 bits (Marsaglia 2003): small, and the same everywhere."""

    def __init__(self, seed):
        self._x = (seed * 2654435761 + 1013904223) & _MASK or 1

    def below(self, n):
        """A number from 0 to n - 1."""
        x = self._x
        x ^= x << 13 & _MASK
        x ^= x >> 17
        x ^= x << 5 & _MASK
        self._x = x
        return (x >> 3) % n

    def octets(self, n):
        """So many of them."""
        return bytes([self.below(256) for _ in range(n)])


def broken(draw, octets):
    """`octets` with three of them changed: no further damage turns them right again by chance."""
    made = bytearray(octets)
    places = set()
    while len(places) < 3:
        places.add(draw.below(len(made)))
    for at in places:
        made[at] ^= 1 + draw.below(255)
    return bytes(made)


def _length(n):
    made = bytearray()
    while n > 127:
        made.append(n & 127 | 128)
        n >>= 7
    made.append(n)
    return bytes(made)


def _message(draw, topics, envelopes):
    topic = draw.octets(draw.below(40)) if not draw.below(4) else topics[draw.below(len(topics))].encode()
    kind = draw.below(5)
    if kind < 3:
        payload = broken(draw, envelopes[draw.below(len(envelopes))])
        if kind == 2:
            payload = payload[: draw.below(len(payload))]
    else:
        payload = draw.octets(draw.below(60)) if kind == 3 else bytes((draw.below(256),)) * draw.below(5000)
    qos = draw.below(4) if not draw.below(4) else draw.below(2)
    number = draw.octets(2) if qos else b""
    body = len(topic).to_bytes(2, "big") + topic + number + payload
    length = len(body) if draw.below(8) else draw.below(1 << 4 * (1 + draw.below(7)))
    return (
        bytes((0x30 | qos << 1 | draw.below(2) | (draw.below(2) << 3 if not draw.below(6) else 0),))
        + _length(length)
        + body
    )


def lie(seed, topics, envelopes):
    """The pieces in which a broker sends what it made up.

    topics: the client's own. envelopes: rightly sealed ones; none of them is sent as it is.
    """
    draw = Draw(seed)
    stream = b""
    for _ in range(1 + draw.below(6)):
        kind = draw.below(10)
        if kind < 6:
            stream += _message(draw, topics, envelopes)
        elif kind < 8:
            stream += _SPARE[draw.below(len(_SPARE))]
        elif kind == 8:
            stream += draw.octets(1 + draw.below(40))
        else:
            stream += bytes((draw.below(256),)) + _length(draw.below(1 << 28))
    made = bytearray(stream)
    for _ in range(draw.below(3)):
        made[draw.below(len(made))] = draw.below(256)
    if not draw.below(3):
        made = made[: draw.below(len(made))]
    pieces = []
    largest = (1, 7, 100, 2000)[draw.below(4)] if len(made) < 400 else 1 + draw.below(2000)
    at = 0
    while at < len(made):
        n = 1 + draw.below(largest)
        pieces.append(bytes(made[at : at + n]))
        at += n
    return pieces
