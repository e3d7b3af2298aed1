"""Envelopes: what every Tocsin message is on the wire, on buttons (MicroPython) and stations (CPython) alike.

An envelope is a COSE_Mac0 message (RFC 9052 section 6.2, CBOR tag 17) with the protected header
{1: 5 (HMAC 256/256), 4: kid} and a payload that is a CBOR map with small integer keys in deterministic
encoding (RFC 8949 section 4.2). `decode` takes that encoding and no other: a second spelling of a message,
a duplicate key, a float, or anything nested deeper than DEPTH is a WireError, whose text says what was wrong.
Fields, kinds and codes are described in docs/protocol.md; their numbers are never used again for another meaning.
"""

import hashlib

try:
    # CPython: stations judge thousands of messages a second
    from functools import lru_cache  # type: ignore[import-not-found,unused-ignore]
    from hmac import compare_digest, digest  # type: ignore[import-not-found,unused-ignore]
except ImportError:
    digest = lru_cache = None

MAX_ENVELOPE = 1024  # bytes of a child's envelope
MAX_FRAME = 2048  # bytes of a frame: an envelope, its hops and the frame's own header
MAX_BATCH = 8000  # bytes of a batch: several envelopes between two stations
DEPTH = 4  # maps and arrays within one another
MAX_ITEMS = 64  # entries of one map or array
MAX_NAMED = 32  # children named in one DIGEST or MAINTAINED

# Fields of a payload.
KIND = 0
BOOT = 1
SEQ = 2
AGE = 3
RESUMED = 4
CAUSE = 5
HOW = 6
CODE = 7
SUBJECT = 8
DETAIL = 9
STAGE = 10
DEVICE = 11
STATE = 12
ENVELOPE = 13
HOPS = 14
LETTERS = 15
LOOP = 20
TAMPER = 21
BATTERY = 22
SUPPLY = 23
RSSI = 24
HEAP = 25
UPTIME = 26
RESET = 27
FIRMWARE = 28
PENDING = 29
SHOWN = 30
DELAY = 31
RECONNECTS = 32
CHILDREN = 33
ONLINE = 34
REFUSED = 35
DISK = 36
STORAGE = 37  # 0: what must survive a power cut is kept; 1: the flash cannot be written
DIGEST = 38  # of a station's children: [how many exceptions are not named, [[child, CHILD_LATE or worse], …]]
MAINTAINED = 39  # in an answer to a station: [[child, for how many seconds its silence is no event], …]
HEAP_LEAST = 45
ELSEWHERE = 47  # in an answer to a station: [child, …] that it misses and that another station brings
WANTED = 46  # the pieces of an update that come next: [the first 8 bytes of its head's SHA-256, offset]
PATH = 48  # which carries the button's session
SPARE = 49  # how its other one is
TESTING = 50  # 1: presses may become tests; 2: they are
MARK = 51  # of a parent's journal: what it holds, in its answer to a station; that again, in a heartbeat, as a question
KNOWN = 52  # in an answer to a station: [… the MARK asked for, whether the journal holds it: gateway/marks.py]
ANSWERED = 53  # in a heartbeat: seq of the newest one of the same start that headquarters answered
UPON = 54  # of a command: [boot, seq] of a heartbeat of late, so that nobody can keep one for later
UTC = 55  # milliseconds by a station's clock, in its heartbeat

# KIND
ALARM = 1
EVENT = 2
HEARTBEAT = 3
RECEIPT = 4
COMMAND = 5
FRAME = 6
PRESENCE = 7
BATCH = 8

# CAUSE of an alarm
HOLD_UP = 1
DURESS = 2
MEDICAL = 3
TEST = 4

# HOW it was pressed: which contacts of the button said so
BOTH_CONTACTS = 0
CONTACT_A = 1
CONTACT_B = 2

# STAGE of a receipt
AT_GATEWAY = 1
AT_HQ = 2
ACKNOWLEDGED = 3
RESPONDING = 4
CLOSED = 5

# CODE of an event. A button's own: below 16, 60 and up. A station's: 16 to 31, 40 and up. Steps of an incident: 32 to 39.
STARTED = 1
LOOP_CUT = 2
LOOP_SHORTED = 3
LOOP_RESTORED = 4
TAMPERED = 5
TAMPER_RESTORED = 6
LOOP_FAULT = 7
EVENTS_DROPPED = 8
COMMAND_DONE = 9
COMMAND_FAILED = 10
FAULTED = 11  # the start before this one ended by a fault: DETAIL says which
UPDATE_TRIAL = 12  # a new firmware runs, and is kept if headquarters' receipt for this comes; DETAIL: its version
STILL_PRESSED = 13  # since before the start: DETAIL is [boot, seq] of the alarm that it belongs to
CONTACT_CHATTERS = 14
CONTACT_STUCK = 15
PATH_CHANGED = 60  # SUBJECT: the path that carries now; DETAIL: why
SPARE_LOST = 61  # SUBJECT: the path over which no station answers, beside the one that carries; DETAIL: why
SPARE_BACK = 62
TESTING_BEGUN = 63  # presses are tests; DETAIL: [boot, seq] of the alarm that the pattern raised
TESTING_ENDED = 64
CHILD_SILENT = 16
CHILD_BACK = 17
BROKER_LOST = 18
BROKER_BACK = 19
REFUSAL = 20
STATION_STARTED = 21
STORAGE_FAILED = 22
ENROLMENT_BEGUN = 23
ENROLLED = 24
ENROLMENT_EXPIRED = 25
RETIRED = 26
REVOCATIONS = 27
STEP_ACKNOWLEDGED = 32
STEP_RESPONDING = 33
STEP_ON_SCENE = 34
STEP_CLOSED = 35
# Of a station again: 40 and up.
MANY_SILENT = 40
MANY_BACK = 41
MAINTENANCE = 42
MAINTENANCE_ENDED = 43
JOURNAL_LACKS = 44  # SUBJECT's journal, or this one as SUBJECT saw it, lacks what it had; DETAIL: a sentence
STORAGE_RESTORED = 56  # DETAIL: what was wrong, and for how long
CLOCK_JUMPED = 57  # DETAIL: by how much
CHECKPOINT = 58  # of the journal's hash chain
REGISTRY_ENTRY = 59  # some fields of a child's entry as they are now; journaled, never relayed
SITE_CHANGED = 48
ROLLOUT = 60  # of a firmware to buttons: begun, halted, over; DETAIL: a sentence

# CODE of a command
IDENTIFY = 1
WIFI = 2
TEST_ALARM = 3
REBOOT = 4
CONFIGURE = 5
UPDATE = 6
PIECE = 7  # of an update, as an answer to a heartbeat's WANTED: never answered, and not numbered
RENEW = 16
TEST_MODE = 17  # DETAIL: {TEST_FOR_S: …}; for how long presses may become tests
TEST_OVER = 18

# Entries of DETAIL of COMMAND_DONE and COMMAND_FAILED: which command, and a sentence
ANSWER_BOOT = 0
ANSWER_SEQ = 1
ANSWER_TEXT = 5

PIECE_BYTES = 768  # of an update in one message: with the longest ids an envelope still holds it
PIECES = 4  # of them for one heartbeat

TEST_FOR_S = 0  # entry of DETAIL of TEST_MODE: for how many seconds from the heartbeat on that it was sent upon

# LOOP, as a heartbeat states it
LOOP_AT_REST = 0
LOOP_PRESSED = 1
LOOP_IS_CUT = 2
LOOP_IS_SHORTED = 3
LOOP_IS_FAULTY = 4

# State of a child that a DIGEST names; one that it doesn't name is well
CHILD_LATE = 1
CHILD_OFFLINE = 2
CHILD_FAULTY = 3
CHILD_TAMPERED = 4

# SUPPLY, as a heartbeat states it
ON_BATTERY = 0
ON_MAINS = 1

# PATH, and SPARE, as a heartbeat states them
BY_CABLE = 1
BY_WIFI = 2
NO_SPARE = 0
SPARE_READY = 1
SPARE_DEAD = 2

_INT = 0
_BYTES = 2
_TEXT = 3
_LIST = 4
_MAP = 5
_TAG = 6
_SIMPLE = 7

_COSE_MAC0 = 0xD1  # tag 17 in one byte
_HMAC_256 = 5  # RFC 9053 table 3: HMAC 256/256
_UINT32 = 0xFFFFFFFF
_UINT53 = 0x1FFFFFFFFFFFFF
_IPAD = int.from_bytes(b"\x36" * 64, "big")
_OPAD = int.from_bytes(b"\x5c" * 64, "big")


class WireError(Exception):
    """What is wrong with a message, in one sentence."""


# ------------------------------------------------------------------------------------------------- CBOR


def _head(major: int, n: int) -> bytes:
    major <<= 5
    if n < 24:
        return bytes((major | n,))
    if n < 0x100:
        return bytes((major | 24, n))
    if n < 0x10000:
        return bytes((major | 25, n >> 8, n & 0xFF))
    if n <= _UINT32:
        return bytes((major | 26,)) + n.to_bytes(4, "big")
    return bytes((major | 27,)) + n.to_bytes(8, "big")


def encode(value) -> bytes:
    """Deterministic CBOR of ints, bytes, text, booleans, None, lists, and maps whose keys are ints from 0 up.

    Raises WireError for anything else.
    """
    if value is None:
        return b"\xf6"
    if value is True:
        return b"\xf5"
    if value is False:
        return b"\xf4"
    if isinstance(value, int):
        return _head(_INT, value) if value >= 0 else _head(1, -1 - value)
    if isinstance(value, str):
        text = value.encode()
        return _head(_TEXT, len(text)) + text
    if isinstance(value, (bytes, bytearray)):
        return _head(_BYTES, len(value)) + value
    if isinstance(value, (list, tuple)):
        return _head(_LIST, len(value)) + b"".join([encode(item) for item in value])
    if isinstance(value, dict):
        parts = [_head(_MAP, len(value))]
        for key in sorted(value):
            if not isinstance(key, int) or key < 0:
                raise WireError("a map key is not a number from 0 up")
            parts.append(_head(_INT, key))
            parts.append(encode(value[key]))
        return b"".join(parts)
    raise WireError("a value of this type has no place on the wire")


def _length(octets, at: int, limit: int) -> tuple:
    """(major type, argument, next position) of the item head at `at`."""
    if at >= limit:
        raise WireError("the message ends in the middle of an item")
    first = octets[at]
    at += 1
    n = first & 31
    if n < 24:
        return first >> 5, n, at
    if n > 27:
        raise WireError("an item has an indefinite or reserved length")
    width = 1 << (n - 24)
    end = at + width
    if end > limit:
        raise WireError("the message ends in the middle of an item")
    n = int.from_bytes(octets[at:end], "big")
    if n < 24 or (width > 1 and not n >> (width * 4)):
        raise WireError("a number is not in its shortest form")
    return first >> 5, n, end


def _text(octets: bytes, what: str) -> str:
    try:
        text = octets.decode()
    except UnicodeError:  # of which CPython's UnicodeDecodeError is a kind
        raise WireError("%s is not UTF-8" % what) from None
    if len(text) != len(octets):
        # Beyond ASCII: MicroPython takes surrogates and spellings in too many octets, which RFC 3629 section 3 forbids.
        length = 0
        for c in text:
            n = ord(c)
            if 0xD800 <= n < 0xE000 or n > 0x10FFFF:
                raise WireError("%s is not UTF-8" % what)
            length += 1 if n < 0x80 else 2 if n < 0x800 else 3 if n < 0x10000 else 4
        if length != len(octets):
            raise WireError("%s is not UTF-8" % what)
    return text


def _item(octets, at: int, limit: int, depth: int) -> tuple:
    major, n, at = _length(octets, at, limit)
    if major == _INT:
        return n, at
    if major == 1:
        return -1 - n, at
    if major == _BYTES or major == _TEXT:
        end = at + n
        if end > limit:
            raise WireError("a string is longer than the message")
        piece = bytes(octets[at:end])
        if major == _BYTES:
            return piece, end
        return _text(piece, "a text"), end
    if major == _LIST or major == _MAP:
        if not depth:
            raise WireError("maps and arrays are nested too deeply")
        if n > MAX_ITEMS:
            raise WireError("a map or array has too many entries")
        if major == _LIST:
            items = []
            for _ in range(n):
                value, at = _item(octets, at, limit, depth - 1)
                items.append(value)
            return items, at
        entries = {}
        last = -1
        for _ in range(n):
            major, key, at = _length(octets, at, limit)
            if major != _INT:
                raise WireError("a map key is not a number from 0 up")
            if key <= last:
                raise WireError("map keys are repeated or out of order")
            last = key
            entries[key], at = _item(octets, at, limit, depth - 1)
        return entries, at
    if major == _SIMPLE and 20 <= n <= 22:
        return (False, True, None)[n - 20], at
    raise WireError("an item is a float, a tag or an unassigned value")


def decode(octets):
    """The value of exactly one deterministically encoded CBOR item; WireError for anything else."""
    value, at = _item(octets, 0, len(octets), DEPTH)
    if at != len(octets):
        raise WireError("something follows the message")
    return value


def end_of(octets, at: int) -> int:
    """Where the item ends that begins at `at`. Raises WireError."""
    return _item(octets, at, len(octets), DEPTH)[1]


# ------------------------------------------------------------------------------------------------- keys


def hmac_sha256(key: bytes, message: bytes) -> bytes:
    """HMAC-SHA256 (RFC 2104); `key` of at most 64 bytes, as all keys here are."""
    if digest is not None:
        return digest(key, message, "sha256")
    block = int.from_bytes(key + bytes(64 - len(key)), "big")
    inner = hashlib.sha256((block ^ _IPAD).to_bytes(64, "big"))
    inner.update(message)
    outer = hashlib.sha256((block ^ _OPAD).to_bytes(64, "big"))
    outer.update(inner.digest())
    return outer.digest()


def same(a: bytes, b: bytes) -> bool:
    """Equality in a time that does not depend on where the two differ."""
    if digest is not None:
        return compare_digest(a, b)
    if len(a) != len(b):
        return False
    difference = 0
    for x, y in zip(a, b):  # noqa: B905 - MicroPython's zip has no strict=
        difference |= x ^ y
    return not difference


def message_key(shared: bytes, child: str, parent: str) -> bytes:
    """The 32-byte MAC key between `child` and `parent`: HKDF-SHA256 (RFC 5869) of their P-256 ECDH secret.

    shared: x coordinate, 32 bytes, of (child's certificate key x parent's message key). No salt.
    """
    return _derived(shared, b"tocsin/1 message key\0" + child.encode() + b"\0" + parent.encode())


def command_key(key: bytes) -> bytes:
    """The 32-byte AES key for the secret part of commands, from the message key. No salt."""
    return _derived(key, b"tocsin/1 command key")


def _derived(secret: bytes, info: bytes) -> bytes:
    """HKDF-SHA256 (RFC 5869) without a salt: the first 32 bytes."""
    return hmac_sha256(hmac_sha256(b"", secret), info + b"\1")


def masked(octets: bytes, boot: int, seq: int, block) -> bytes:
    """AES-CTR (NIST SP 800-38A, 6.5) of `octets`, its own inverse. It hides; only the envelope's MAC proves.

    block(16 bytes) -> 16 bytes: one block of AES-256 under `command_key`. The counter block is boot, seq, 0 and the
    block's number, 4 bytes each, big-endian: never the same twice, because headquarters never uses a (boot, seq) twice.
    """
    start = boot.to_bytes(4, "big") + seq.to_bytes(4, "big") + bytes(4)
    out = bytearray(octets)
    for at in range(0, len(out), 16):
        stream = block(start + (at // 16).to_bytes(4, "big"))
        for i in range(at, min(at + 16, len(out))):
            out[i] ^= stream[i - at]
    return bytes(out)


# --------------------------------------------------------------------------------------------- envelopes


class Envelope:
    """An envelope taken apart, not yet believed: call `sealed_with` before trusting `message`."""

    def __init__(self, kid: str, message: dict, protected: bytes, payload: bytes, tag: bytes) -> None:
        self.kid = kid
        self.message = message
        self._protected = protected
        self._payload = payload
        self._tag = tag

    def sealed_with(self, key: bytes) -> bool:
        """Whether the MAC is right under `key`."""
        return same(hmac_sha256(key, _mac_structure(self._protected, self._payload)), self._tag)


def _protected(kid: str) -> bytes:
    return encode({1: _HMAC_256, 4: kid.encode()})


def _mac_structure(protected: bytes, payload: bytes) -> bytes:
    return b"\x84\x64MAC0" + _head(_BYTES, len(protected)) + protected + b"\x40" + _head(_BYTES, len(payload)) + payload


def seal(message: dict, kid: str, key: bytes) -> bytes:
    """The envelope of `message` from the sender `kid`, under the 32-byte `key`."""
    protected = _protected(kid)
    payload = encode(message)
    tag = hmac_sha256(key, _mac_structure(protected, payload))
    return b"".join(
        (
            b"\xd1\x84",
            _head(_BYTES, len(protected)),
            protected,
            b"\xa0",
            _head(_BYTES, len(payload)),
            payload,
            b"\x58\x20",
            tag,
        )
    )


def _octets(octets, at: int) -> tuple:
    major, n, at = _length(octets, at, len(octets))
    if major != _BYTES or at + n > len(octets):
        raise WireError("this is not a COSE_Mac0 message")
    return bytes(octets[at : at + n]), at + n


def unseal(octets, longest: int = MAX_FRAME) -> Envelope:
    """Takes an envelope apart and checks its form, its fields' types and ranges; the MAC is *not* checked here.

    Raises WireError for anything that `seal` could not have made, or that is longer than `longest` bytes.
    """
    if len(octets) > longest:
        raise WireError("the message is longer than %d bytes" % longest)
    if len(octets) < 2 or octets[0] != _COSE_MAC0 or octets[1] != 0x84:
        raise WireError("this is not a COSE_Mac0 message")
    protected, at = _octets(octets, 2)
    if octets[at : at + 1] != b"\xa0":
        raise WireError("the unprotected header is not empty")
    payload, at = _octets(octets, at + 1)
    tag, at = _octets(octets, at)
    if at != len(octets):
        raise WireError("something follows the message")
    if len(tag) != 32:
        raise WireError("the MAC is not 32 bytes long")
    return Envelope(_kid_of(protected), message_of(payload), protected, payload, tag)


def _kid_of(protected: bytes) -> str:
    header = decode(protected)
    if not isinstance(header, dict) or len(header) != 2 or header.get(1) != _HMAC_256:
        raise WireError("the protected header is not {1: 5, 4: kid}")
    kid = header.get(4)
    if not isinstance(kid, bytes):
        raise WireError("the kid is not a byte string")
    name = _text(kid, "the kid")
    if not is_id(name):
        raise WireError("the kid is not an id")
    return name


if lru_cache is not None:  # the same few senders again and again
    _kid_of = lru_cache(4096)(_kid_of)
    _protected = lru_cache(64)(_protected)


def message_of(payload: bytes) -> dict:
    """The payload's map, its fields checked; also reads a bare receipt (docs/protocol.md, stage 1)."""
    message = decode(payload)
    if not isinstance(message, dict):
        raise WireError("the payload is not a map")
    check(message)
    return message


def is_id(name) -> bool:
    """Whether `name` can name a device, station or person: 1 to 64 of a-z, 0-9, '-', '.', starting with no sign."""
    if not isinstance(name, str) or not 0 < len(name) <= 64 or name[0] in "-.":
        return False
    for c in name:
        if not ("a" <= c <= "z" or "0" <= c <= "9" or c in "-."):
            return False
    return True


# What each kind must carry, and what each field must be: an upper bound for numbers, a type for the rest.
_REQUIRED = {
    ALARM: (BOOT, SEQ, AGE, CAUSE),
    EVENT: (BOOT, SEQ, AGE, CODE),
    HEARTBEAT: (BOOT, SEQ, UPTIME),
    RECEIPT: (BOOT, SEQ, STAGE, DEVICE),
    COMMAND: (BOOT, SEQ, DEVICE, CODE),
    FRAME: (ENVELOPE, HOPS),
    PRESENCE: (BOOT, SEQ, STATE),
    BATCH: (LETTERS,),
}
_BOUND = {
    BOOT: _UINT32,
    SEQ: _UINT32,
    AGE: _UINT53,
    RESUMED: _UINT32,
    CAUSE: 255,
    HOW: 255,
    CODE: 255,
    STAGE: CLOSED,
    STATE: 1,
    LOOP: 255,
    TAMPER: 255,
    BATTERY: 65535,
    SUPPLY: 255,
    HEAP: _UINT53,
    HEAP_LEAST: _UINT53,
    UPTIME: _UINT53,
    RESET: 255,
    PENDING: _UINT53,
    DELAY: _UINT53,
    RECONNECTS: _UINT32,
    CHILDREN: _UINT32,
    ONLINE: _UINT32,
    REFUSED: _UINT53,
    DISK: _UINT53,
    STORAGE: 255,
    PATH: 255,
    SPARE: 255,
    TESTING: 255,
    ANSWERED: _UINT32,
    UTC: _UINT53,
}
_TYPE = {
    SUBJECT: str,
    DEVICE: str,
    ENVELOPE: bytes,
    HOPS: list,
    LETTERS: list,
    SHOWN: list,
    FIRMWARE: str,
    RSSI: int,
    DIGEST: list,
    MAINTAINED: list,
    ELSEWHERE: list,
    MARK: list,
    KNOWN: list,
    WANTED: list,
    UPON: list,
}


def _is_number(value, bound: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= bound


def check(message: dict) -> None:
    """Whether a message has the fields of its kind, each of its type and range. Raises WireError."""
    kind = message.get(KIND)
    if isinstance(kind, bool) or not isinstance(kind, int) or kind not in _REQUIRED:
        raise WireError("the kind is unknown")
    for field in _REQUIRED[kind]:
        if field not in message:
            raise WireError("field %d is missing" % field)
    for field, value in message.items():
        bound = _BOUND.get(field)
        if bound is not None:
            if not _is_number(value, bound):
                raise WireError("field %d is not a number from 0 to %d" % (field, bound))
        elif field in _TYPE and not isinstance(value, _TYPE[field]):
            raise WireError("field %d has the wrong type" % field)
    if kind == FRAME:
        for hop in message[HOPS]:
            if not isinstance(hop, list) or len(hop) != 2 or not is_id(hop[0]) or not _is_number(hop[1], _UINT53):
                raise WireError("a hop is not [station, milliseconds]")
    if LETTERS in message and not all([isinstance(letter, bytes) for letter in message[LETTERS]]):
        raise WireError("a batch holds something else than byte strings")
    if SHOWN in message:
        for shown in message[SHOWN]:
            if not isinstance(shown, list) or len(shown) != 3 or not all([_is_number(n, _UINT32) for n in shown]):
                raise WireError("a shown alarm is not [boot, seq, stage]")
    if RSSI in message and not (isinstance(message[RSSI], int) and -256 <= message[RSSI] <= 255):
        raise WireError("the rssi is not in dBm")
    if DEVICE in message and not is_id(message[DEVICE]):
        raise WireError("the device is not an id")
    if DIGEST in message:
        digest = message[DIGEST]
        if len(digest) != 2 or not _is_number(digest[0], _UINT32) or not _are_named(digest[1], 255):
            raise WireError("the digest is not [number, [[child, state], ...]]")
    if UPON in message and not (len(message[UPON]) == 2 and all([_is_number(n, _UINT32) for n in message[UPON]])):
        raise WireError("a command is not upon [boot, seq]")
    if WANTED in message and not _is_wanted(message[WANTED]):
        raise WireError("what is wanted is not [8 bytes, offset]")
    if MAINTAINED in message and not _are_named(message[MAINTAINED], _UINT32):
        raise WireError("what is under maintenance is not [[child, seconds], ...]")
    if ELSEWHERE in message and not (len(message[ELSEWHERE]) <= MAX_NAMED and all(map(is_id, message[ELSEWHERE]))):
        raise WireError("what is elsewhere is not [child, ...]")


def _is_wanted(wanted: list) -> bool:
    return len(wanted) == 2 and isinstance(wanted[0], bytes) and len(wanted[0]) == 8 and _is_number(wanted[1], _UINT32)


def _are_named(named, bound: int) -> bool:
    """Whether it is a list of at most MAX_NAMED [child, number from 0 to `bound`]."""
    if not isinstance(named, list) or len(named) > MAX_NAMED:
        return False
    for one in named:
        if not isinstance(one, list) or len(one) != 2 or not is_id(one[0]) or not _is_number(one[1], bound):
            return False
    return True
