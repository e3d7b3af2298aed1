"""P-256 (y² = x³ - 3x + B; FIPS 186-4 D.1.2.3) in plain integers, for both Pythons: public keys, and ECDH (SEC 1, 3.3.1).

It runs in a button's life at enrolment, at the first start after that for the message key, and to verify an update. It takes no care to hide
the private key from someone who measures time or current at the board while it does: who can, holds the board.
"""

P = 0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
GX = 0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296
GY = 0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5


class KeyFault(ValueError):
    """What is wrong with a key, in one sentence."""


def _double(x: int, y: int, z: int) -> tuple:
    """2 (x : y : z) in Jacobian coordinates, a = -3 (hyperelliptic.org EFD, dbl-2001-b)."""
    delta = z * z % P
    gamma = y * y % P
    beta = x * gamma % P
    alpha = 3 * (x - delta) * (x + delta) % P
    x3 = (alpha * alpha - 8 * beta) % P
    z3 = ((y + z) * (y + z) - gamma - delta) % P
    y3 = (alpha * (4 * beta - x3) - 8 * gamma * gamma) % P
    return x3, y3, z3


def _add(x1: int, y1: int, z1: int, x2: int, y2: int) -> tuple:
    """(x1 : y1 : z1) + (x2, y2) for two points that are not infinity, equal or opposite (EFD, madd).

    Multiplying a point by less than N from the top bit down meets none of the three.
    """
    z1z1 = z1 * z1 % P
    h = (x2 * z1z1 - x1) % P
    r = (y2 * z1 * z1z1 - y1) % P
    hh = h * h % P
    hhh = h * hh % P
    v = x1 * hh % P
    x3 = (r * r - hhh - 2 * v) % P
    return x3, (r * (v - x3) - y1 * hhh) % P, z1 * h % P


def on_curve(x: int, y: int) -> bool:
    """Whether (x, y) is a point of the curve. Without this check a crafted point would leak the private key."""
    return 0 <= x < P and 0 <= y < P and (y * y - (x * x * x - 3 * x + B)) % P == 0


def is_point(octets: bytes) -> bool:
    """Whether these are an uncompressed point of the curve: 65 bytes, 04 x y."""
    if len(octets) != 65 or octets[0] != 4:
        return False
    return on_curve(int.from_bytes(octets[1:33], "big"), int.from_bytes(octets[33:], "big"))


def _affine(at: tuple) -> tuple:
    """(x, y) of a point in Jacobian coordinates that is not infinity."""
    inverse = pow(at[2], P - 2, P)
    square = inverse * inverse % P
    return at[0] * square % P, at[1] * square * inverse % P


def _times(number: int, x: int, y: int) -> tuple:
    """`number` times the point (x, y). Raises KeyFault for a number that is no private key."""
    if not 0 < number < N:
        raise KeyFault("the private key is not between 1 and the order of P-256")
    at = (x, y, 1)
    bit = 1
    while bit <= number:
        bit <<= 1
    bit >>= 2
    while bit:
        at = _double(*at)
        if number & bit:
            at = _add(*at, x, y)
        bit >>= 1
    return _affine(at)


def public(private: int) -> bytes:
    """The public key of a private one: an uncompressed point, 65 bytes. Raises KeyFault for one out of range."""
    x, y = _times(private, GX, GY)
    return b"\4" + x.to_bytes(32, "big") + y.to_bytes(32, "big")


def shared(private: int, point: bytes) -> bytes:
    """The x coordinate, 32 bytes, of `private` times the uncompressed point (65 bytes, 04 x y).

    Raises KeyFault for a private key out of range or a point that is not on the curve.
    """
    if len(point) != 65 or point[0] != 4:
        raise KeyFault("the public key is not an uncompressed point of 65 bytes")
    if not is_point(point):
        raise KeyFault("the public key is not a point of P-256")
    x, _ = _times(private, int.from_bytes(point[1:33], "big"), int.from_bytes(point[33:], "big"))
    return x.to_bytes(32, "big")


def _sum(at: tuple, x: int, y: int) -> tuple:
    """at + (x, y) for any two points; z = 0 is infinity."""
    if not at[2]:
        return x, y, 1
    z1z1 = at[2] * at[2] % P
    if (x * z1z1 - at[0]) % P:
        return _add(at[0], at[1], at[2], x, y)
    return _double(*at) if (y * at[2] * z1z1 - at[1]) % P == 0 else (1, 1, 0)


def combined(u: int, v: int, x: int, y: int):
    """u G + v (x, y), both by one walk down the bits: a generator that yields None between steps, last the x coordinate.

    u, v: 0 to N - 1. The last value is -1 for the point at infinity. Made in steps, because it takes most of a second on
    the chip, and a press must not wait for it.
    """
    at = _sum((GX, GY, 1), x, y)
    both = _affine(at) if at[2] else None
    at = (1, 1, 0)
    bit = 1 << 255
    while bit:
        if at[2]:
            at = _double(*at)
        if u & bit and v & bit:
            at = _sum(at, *both) if both else at
        elif u & bit:
            at = _sum(at, GX, GY)
        elif v & bit:
            at = _sum(at, x, y)
        bit >>= 1
        yield None
    yield _affine(at)[0] if at[2] else -1
