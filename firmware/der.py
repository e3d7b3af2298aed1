"""DER (X.690), as much of it as keys and certificates need: a cursor to read with, and elements to write."""

INTEGER = 0x02
BITS = 0x03
OCTETS = 0x04
OID = 0x06
UTF8 = 0x0C
PRINTABLE = 0x13
SEQUENCE = 0x30
SET = 0x31
TAGGED_0 = 0xA0
TAGGED_1 = 0xA1


class DerFault(ValueError):
    """The octets are not the DER that was expected."""


class Der:
    """A cursor: `octets` is what was not taken yet."""

    def __init__(self, octets: bytes) -> None:
        self.octets = octets

    def has(self, tag: int) -> bool:
        """Whether the next element has this tag."""
        return self.octets[:1] == bytes([tag])

    def take(self, tag: int) -> "Der":
        """The content of the next element, which must have this tag. Raises DerFault."""
        octets = self.octets
        if len(octets) < 2 or octets[0] != tag:
            raise DerFault("an element with tag 0x%02x was expected" % tag)
        length = octets[1]
        at = 2
        if length & 0x80:
            width = length & 0x7F
            if not 0 < width <= 2 or len(octets) < 2 + width:
                raise DerFault("an element's length cannot be read")
            length = int.from_bytes(octets[2 : 2 + width], "big")
            at += width
        if at + length > len(octets):
            raise DerFault("it is cut off")
        self.octets = octets[at + length :]
        return Der(octets[at : at + length])

    def end(self) -> None:
        """Raises DerFault unless everything was taken."""
        if self.octets:
            raise DerFault("there is more than was expected")


def element(tag: int, *contents) -> bytes:
    """An element with these octets, one after the other, as its content; less than 64 KiB."""
    content = b"".join(contents)
    length = len(content)
    if length < 0x80:
        return bytes([tag, length]) + content
    if length < 0x100:
        return bytes([tag, 0x81, length]) + content
    return bytes([tag, 0x82, length >> 8, length & 0xFF]) + content


def integer(number: int) -> bytes:
    """An INTEGER that is not negative and below 2**256: with a leading zero octet exactly where DER wants one."""
    octets = number.to_bytes(33, "big").lstrip(b"\0") or b"\0"
    return element(INTEGER, b"\0" if octets[0] & 0x80 else b"", octets)
