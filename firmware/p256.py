"""ECDH on P-256 (y² = x³ - 3x + B; FIPS 186-4 D.1.2.3, SEC 1 section 3.3.1) in plain integers, for both Pythons.

It runs once in a button's life, at the first start after enrolment, for the message key. It takes no care to hide
the private key from someone who measures time or current at the board while it does: who can, holds the board.
"""

P = 0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B


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


def shared(private: int, point: bytes) -> bytes:
    """The x coordinate, 32 bytes, of `private` times the uncompressed point (65 bytes, 04 x y).

    Raises KeyFault for a private key out of range or a point that is not on the curve.
    """
    if not 0 < private < N:
        raise KeyFault("the private key is not between 1 and the order of P-256")
    if len(point) != 65 or point[0] != 4:
        raise KeyFault("the public key is not an uncompressed point of 65 bytes")
    x = int.from_bytes(point[1:33], "big")
    y = int.from_bytes(point[33:], "big")
    if not on_curve(x, y):
        raise KeyFault("the public key is not a point of P-256")
    at = (x, y, 1)
    bit = 1
    while bit <= private:
        bit <<= 1
    bit >>= 2
    while bit:
        at = _double(*at)
        if private & bit:
            at = _add(*at, x, y)
        bit >>= 1
    inverse = pow(at[2], P - 2, P)
    return (at[0] * inverse * inverse % P).to_bytes(32, "big")
