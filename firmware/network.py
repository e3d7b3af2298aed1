"""The cable: brings Ethernet up on a board that has it, and gives the clock a start that certificates accept.

No step here waits for the network: the session tries until it is there (paths.py chooses the path). The time of day serves one purpose, the
validity dates of certificates in the TLS handshake; no message carries it. So the clock need not be right, only not
before the certificates: it starts at the latest time known to be past, and nothing from the network ever sets it.
"""

import time

_UTC_TIME = b"\x17\x0d"  # DER: UTCTime of 13 octets, YYMMDDHHMMSSZ


def not_before(certificate: bytes) -> tuple:
    """(year, month, day, hour, minute, second) from which a certificate in DER is valid: its first UTCTime."""
    at = certificate.find(_UTC_TIME)
    if at < 0:
        raise ValueError("the certificate has no UTCTime")
    digits = certificate[at + 2 : at + 14].decode()
    parts = [int(digits[i : i + 2]) for i in range(0, 12, 2)]
    return (2000 + parts[0], parts[1], parts[2], parts[3], parts[4], parts[5])


def start_clock(certificates: list) -> None:
    """Sets the board's clock to the latest start of validity in `certificates` (DER), if the clock is before that."""
    from machine import RTC

    latest = max([not_before(certificate) for certificate in certificates])
    if time.gmtime()[:6] < latest:
        RTC().datetime((latest[0], latest[1], latest[2], 0, latest[3], latest[4], latest[5], 0))


def ethernet():
    """The LAN interface of the OLIMEX ESP32-POE-ISO, switched on. The driver takes its address from DHCP.

    Its `isconnected()` is not asked: it turns false minutes late. The session judges the path by its broker's answers.
    """
    import network
    from machine import Pin

    lan = network.LAN(mdc=Pin(23), mdio=Pin(18), power=Pin(12), phy_type=network.PHY_LAN8720, phy_addr=0)  # type: ignore[call-arg]
    lan.active(True)
    return lan
