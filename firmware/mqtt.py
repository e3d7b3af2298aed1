"""MQTT 3.1.1 packets of a button: octets in, octets out, no socket and no clock.

Only what a button needs (docs/protocol.md): it connects with a clean session and a last will, subscribes, publishes
and reads with QoS 0 or 1. `Inbox` takes what a broker sends apart, in one buffer that never grows, and is strict:
whatever such a broker may not send, or what is longer than MAX_PACKET, is an MqttError whose text says what was wrong.
Section numbers are those of the OASIS standard of 29 October 2014.
"""

MAX_PACKET = 2048  # octets of one packet, its header included: an envelope has 1,024 at most

# Packet types, as `Inbox.packet` names them: the upper half of the first octet.
CONNACK = 2
PUBLISH = 3
PUBACK = 4
SUBACK = 9
PINGRESP = 13

PINGREQ = b"\xc0\x00"
DISCONNECT = b"\xe0\x00"

_REFUSALS = (
    "the protocol version",
    "the client id",
    "us, as it is not available",
    "the user name or password",
    "us, as not authorised",
)


class MqttError(Exception):
    """What is wrong with a packet, or why a broker refuses us, in one sentence."""


# ---------------------------------------------------------------------------------------------- octets out


def _packet(first: int, *parts) -> bytes:
    length = sum([len(part) for part in parts])
    header = bytearray((first,))
    n = length
    while n > 127:
        header.append(n & 127 | 128)
        n >>= 7
    header.append(n)
    if len(header) + length > MAX_PACKET:
        raise MqttError("a packet of %d octets is too long to send" % (len(header) + length))
    return bytes(header) + b"".join(parts)


def _number(n: int) -> bytes:
    return bytes((n >> 8, n & 255))


def _string(text) -> bytes:
    octets = text.encode() if isinstance(text, str) else text
    return _number(len(octets)) + octets


def connect(client_id: str, keepalive_s: int, will_topic: str, will: bytes) -> bytes:
    """CONNECT with a clean session and a retained last will of QoS 1 (section 3.1)."""
    flags = 0x02 | 0x04 | 0x08 | 0x20  # clean session; will: present, QoS 1, retained
    header = b"\x00\x04MQTT\x04" + bytes((flags,)) + _number(keepalive_s)
    return _packet(0x10, header, _string(client_id), _string(will_topic), _string(will))


def subscribe(packet_id: int, topics) -> bytes:
    """SUBSCRIBE to each of `topics` with QoS 1 (section 3.8)."""
    return _packet(0x82, _number(packet_id), b"".join([_string(topic) + b"\x01" for topic in topics]))


def publish(topic: str, payload: bytes, qos: int, retain: bool, packet_id: int) -> bytes:
    """PUBLISH with QoS 0, where `packet_id` does not matter, or 1 (section 3.3); MqttError beyond MAX_PACKET."""
    number = _number(packet_id) if qos else b""
    return _packet(0x30 | qos << 1 | int(retain), _string(topic), number, payload)


def puback(packet_id: int) -> bytes:
    """PUBACK: `packet_id` has arrived (section 3.4)."""
    return b"\x40\x02" + _number(packet_id)


# ----------------------------------------------------------------------------------------------- octets in


class Inbox:
    """Cuts a stream into packets.

    Read into `room()`, say `took(n)`, then ask for `packet()` until it is None, again and again.
    """

    def __init__(self) -> None:
        self._view = memoryview(bytearray(MAX_PACKET))
        self._start = 0
        self._end = 0

    def clear(self) -> None:
        """Forgets what is left of an earlier stream."""
        self._start = self._end = 0

    def room(self) -> memoryview:
        """Where the next octets belong; never empty once `packet()` has been None."""
        if self._start:
            rest = self._end - self._start
            if rest:
                self._view[:rest] = bytes(self._view[self._start : self._end])
            self._start = 0
            self._end = rest
        return self._view[self._end :]

    def took(self, n: int) -> None:
        """`n` octets have been put into `room()`."""
        self._end += n

    def packet(self) -> tuple | None:
        """The next packet, or None when it has not arrived in full: a tuple of which the first item is the packet's type.

        (CONNACK,), (SUBACK, packet id), (PUBACK, packet id), (PINGRESP,) or (PUBLISH, topic, payload, packet id or 0).
        A refusal by CONNACK or SUBACK is an MqttError.
        """
        length = shift = 0
        at = self._start + 1
        while True:
            if at >= self._end:
                return None
            octet = self._view[at]
            at += 1
            length |= (octet & 127) << shift
            shift += 7
            if octet < 128:
                break
            if shift > 21:
                raise MqttError("a packet's length is malformed")
        end = at + length
        if end - self._start > MAX_PACKET:
            raise MqttError("a packet of %d octets is too long" % (end - self._start))
        if end > self._end:
            return None
        first = self._view[self._start]
        body = self._view[at:end]
        self._start = end
        return _read(first, body)


def _read(first: int, body) -> tuple:
    kind = first >> 4
    length = len(body)
    if kind == PUBLISH:
        return _read_publish(first, body)
    if first & 15:
        raise MqttError("a packet's reserved flags are not zero")
    if kind == PUBACK and length == 2:
        return PUBACK, body[0] << 8 | body[1]
    if kind == PINGRESP and not length:
        return (PINGRESP,)
    if kind == CONNACK and length == 2:
        if body[1]:
            what = _REFUSALS[body[1] - 1] if body[1] <= len(_REFUSALS) else "us for reason %d" % body[1]
            raise MqttError("the broker refuses %s" % what)
        if body[0]:
            raise MqttError("the broker keeps a session although a clean one was asked for")
        return (CONNACK,)
    if kind == SUBACK and length > 2:
        for n in range(2, length):
            if body[n] > 1:
                raise MqttError("the broker refuses a subscription")
        return SUBACK, body[0] << 8 | body[1]
    raise MqttError("a packet of type %d and length %d is not for a button" % (kind, length))


def _read_publish(first: int, body) -> tuple:
    qos = first >> 1 & 3
    if qos > 1 or first & 0x0E == 0x08:
        raise MqttError("a message has a QoS that was not asked for")
    at = 2 + (body[0] << 8 | body[1]) if len(body) > 1 else 0
    payload = at + 2 if qos else at
    if at < 3 or payload > len(body):
        raise MqttError("a message ends within its header")
    try:
        topic = bytes(body[2:at]).decode()
    except UnicodeError:
        raise MqttError("a topic is not UTF-8") from None
    if "\0" in topic or "+" in topic or "#" in topic:
        raise MqttError("a topic has a character that no topic may have")
    packet_id = body[at] << 8 | body[at + 1] if qos else 0
    if qos and not packet_id:
        raise MqttError("a message has the packet id 0")
    return PUBLISH, topic, bytes(body[payload:]), packet_id
