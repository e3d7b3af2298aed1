"""A stand-in for an ESP32 in download mode, true enough that unmodified esptool and espefuse work with it.

`RomLoader` takes octets and gives octets: the serial protocol of the chip's ROM, and of esptool's own stub once that was
"uploaded" (its machine code is taken in and not run). Its flash is a bytearray, its eFuses are bits that only ever rise.
`Device` puts it behind the reset circuit, beside whatever the chip boots into. `Rfc2217Board` and `PtyBoard` are a
device on a port: the first with modem lines, the second without (as if BOOT were held).
"""

import contextlib
import hashlib
import os
import socket
import struct
import threading
import tty
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

import serial.rfc2217

FLASH_OCTETS = 4 * 1024 * 1024
MAGIC = {"ESP32": 0x00F01D83, "ESP32-S2": 0x000007C6, "ESP8266": 0xFFF0C101}
BY_SECURITY_REPORT = {"ESP32-S3": 9, "ESP32-C3": 5}  # newer chips say their id in the security report instead
EFUSES = 0x3FF5A000
BLOCKS = ((0x00, 0x1C, 7), (0x38, 0x98, 8), (0x58, 0xB8, 8), (0x78, 0xD8, 8))  # read at, written at, words
BLANK = (
    b"ets Jul 29 2019 12:21:46\r\n\r\nrst:0x10 (RTCWDT_RTC_RESET),boot:0x13 (SPI_FAST_FLASH_BOOT)\r\n"
    b"invalid header: 0xffffffff\r\ninvalid header: 0xffffffff\r\n"
)
WAITING = (
    b"ets Jul 29 2019 12:21:46\r\n\r\nrst:0x1 (POWERON_RESET),"
    b"boot:0x3 (DOWNLOAD_BOOT(UART0/UART1/SDIO_REI_REO_V2))\r\nwaiting for download\r\n"
)


class Unplugged(Exception):
    """The cable was pulled."""


@dataclass
class Fault:
    """What goes wrong. Numbers of octets count what the chip received since the fault was set."""

    silent: bool = False  # never an answer
    bad_md5: bool = False  # one bit of the flash does not keep what was written
    write_error_block: int | None = None  # this block of a write is refused, always
    unplug_after: int | None = None
    stall_after: int | None = None  # answers no more


def slip(packet):
    """One packet in the framing of the serial protocol."""
    return b"\xc0" + packet.replace(b"\xdb", b"\xdb\xdd").replace(b"\xc0", b"\xdb\xdc") + b"\xc0"


class RomLoader:
    """The loader: `feed` octets, get octets. `flash` is what a test compares; `efuse[block]` its words."""

    def __init__(self, mac="24:0a:c4:a1:b2:c3", chip="ESP32", flash=None, fault=None, revision=3):
        self.chip = chip
        self.flash = flash if flash is not None else bytearray(b"\xff" * FLASH_OCTETS)
        self.fault = fault or Fault()
        self.revision = revision
        self.efuse = [[0] * words for _, _, words in BLOCKS]
        address = bytes.fromhex(mac.replace(":", ""))
        self.efuse[0][1] = int.from_bytes(address[2:], "big")
        self.efuse[0][2] = int.from_bytes(address[:2], "big")
        if revision >= 1:
            self.efuse[0][3] |= 1 << 15
        if revision >= 2:
            self.efuse[0][5] |= 1 << 20
        self.received = 0
        self.restart()

    def restart(self):
        """Back to the ROM: the stub, a write under way and half a packet are forgotten."""
        self.stub = False
        self.buffer = bytearray()
        self.registers = {}
        self.at = self.block = 0
        self.inflate = None
        self.reading = None

    @property
    def blank(self):
        return self.flash[0x1000] != 0xE9

    def feed(self, octets):
        """What the chip answers. Raises Unplugged when the fault says so."""
        self.received += len(octets)
        if self.fault.unplug_after is not None and self.received > self.fault.unplug_after:
            raise Unplugged
        if self.fault.silent or (self.fault.stall_after is not None and self.received > self.fault.stall_after):
            return b""
        out = b""
        self.buffer += octets
        while True:
            first = self.buffer.find(b"\xc0")
            last = self.buffer.find(b"\xc0", first + 1)
            if first < 0 or last < 0:
                del self.buffer[: max(first, 0) if first >= 0 else len(self.buffer)]
                return out
            packet = bytes(self.buffer[first + 1 : last])
            del self.buffer[: last + 1 if packet else last]
            packet = packet.replace(b"\xdb\xdc", b"\xc0").replace(b"\xdb\xdd", b"\xdb")
            if self.reading:
                out += self.next_read(packet)
            elif len(packet) >= 8 and packet[0] == 0:
                out += self.command(packet[1], packet[8:], struct.unpack("<I", packet[4:8])[0])

    def answer(self, operation, value=0, body=b"", error=0):
        status = bytes([1 if error else 0, error]) + (b"" if self.stub else b"\0\0")
        return slip(struct.pack("<BBHI", 1, operation, len(body) + len(status), value) + body + status)

    def command(self, operation, body, checksum):
        if operation == 0x08:  # SYNC
            return self.answer(operation, 0 if self.stub else 0x20120707) * 8
        if operation == 0x0A:
            return self.answer(operation, self.register(struct.unpack("<I", body[:4])[0]))
        if operation == 0x09:
            self.set_register(*struct.unpack("<II", body[:8]))
            return self.answer(operation)
        if operation == 0x14:  # GET_SECURITY_INFO
            return self.security(operation)
        if operation in (0x05, 0x07, 0x0B, 0x0D, 0x0F, 0x04, 0x12):  # memory, parameters, baud rate, end of a write
            return self.answer(operation)
        if operation == 0x06:  # MEM_END: what was uploaded is taken for esptool's stub
            done = self.answer(operation)
            self.stub = True
            return done + slip(b"OHAI")
        if operation in (0x02, 0x10):  # FLASH_BEGIN, FLASH_DEFL_BEGIN
            size, _, _, self.at = struct.unpack("<IIII", body[:16])
            self.inflate = zlib.decompressobj() if operation == 0x10 else None
            self.block = 0
            end = self.at + size
            self.flash[self.at : end + -end % 4096] = b"\xff" * (size + -end % 4096)
            return self.answer(operation)
        if operation in (0x03, 0x11):
            return self.answer(operation, error=self.write(body, checksum))
        if operation == 0x13:  # SPI_FLASH_MD5
            at, size = struct.unpack("<II", body[:8])
            digest = hashlib.md5(self.flash[at : at + size])
            return self.answer(operation, 0, digest.digest() if self.stub else digest.hexdigest().encode())
        if operation == 0x0E and not self.stub:
            at, size = struct.unpack("<II", body[:8])
            return self.answer(operation, 0, bytes(self.flash[at : at + size]).ljust(64, b"\xff"))
        if operation in (0xD0, 0xD1) and self.stub:
            at, size = struct.unpack("<II", body[:8]) if operation == 0xD1 else (0, len(self.flash))
            self.flash[at : at + size] = b"\xff" * size
            return self.answer(operation)
        if operation == 0xD2 and self.stub:
            at, size, piece, _ = struct.unpack("<IIII", body[:16])
            self.reading = [at, at + size, at, piece]
            return self.answer(operation) + self.next_read(None)
        return self.answer(operation, error=0xFF if self.stub else 5)  # not a command of this loader

    def write(self, body, checksum):
        size, sequence = struct.unpack("<II", body[:8])
        octets = body[16 : 16 + size]
        total = 0xEF
        for octet in octets:
            total ^= octet
        if total != checksum & 0xFF:
            return 7
        if self.fault.write_error_block is not None and sequence >= self.fault.write_error_block:
            return 8
        if self.inflate:
            octets = self.inflate.decompress(octets)
        octets = octets[: max(0, len(self.flash) - self.at)]
        self.flash[self.at : self.at + len(octets)] = octets
        if self.fault.bad_md5 and octets and not self.block:
            self.flash[self.at + len(octets) // 2] ^= 0x10
        self.at += len(octets)
        self.block += 1
        return 0

    def next_read(self, acknowledged):
        """The stub's stream of pieces, each acknowledged by the number of octets so far; then an MD5."""
        begin, end, at, piece = self.reading
        if acknowledged is not None and at >= end:
            self.reading = None
            return slip(hashlib.md5(self.flash[begin:end]).digest())
        octets = bytes(self.flash[at : min(end, at + piece)])
        self.reading[2] = at + len(octets)
        return slip(octets)

    def security(self, operation):
        if self.chip not in BY_SECURITY_REPORT:
            return self.answer(operation, error=0xFF if self.stub else 5)
        return self.answer(operation, 0, struct.pack("<IB7BII", 0, 0, *(0,) * 7, BY_SECURITY_REPORT[self.chip], 0))

    def register(self, address):
        for number, (read_at, _, words) in enumerate(BLOCKS):
            word = (address - EFUSES - read_at) // 4
            if 0 <= address - EFUSES - read_at < words * 4:
                hidden = number and (self.efuse[0][0] >> 16) & (1 << (number - 1))
                return 0 if hidden else self.efuse[number][word]
        if address == 0x3FF6607C:
            return (1 << 31) if self.revision >= 3 else 0
        constants = {0x40001000: MAGIC.get(self.chip, 0), 0x3FF40014: int(40e6 / 115200), 0x3FF42080: 0x164020}
        return constants.get(address) or self.registers.get(address, 0)

    def set_register(self, address, value):
        if address == EFUSES + 0x104 and value == 2:  # the eFuse controller's "program"
            self.burn()
        elif address not in (EFUSES + 0x104, 0x3FF42000, 0x3FF42080):  # those clear themselves
            self.registers[address] = value

    def burn(self):
        protected = self.efuse[0][0]
        for number, (_, write_at, words) in enumerate(BLOCKS):
            for word in range(words):
                value = self.registers.pop(EFUSES + write_at + 4 * word, 0)
                if not (number and protected & (1 << (6 + number))):
                    self.efuse[number][word] |= value


@dataclass
class Device:
    """The chip with its reset circuit: the loader in download mode, else what it boots into.

    boots: called with the octets that arrive in normal mode, gives what is answered; starts: what is said after a reset
    into normal mode. A device without firmware says what the ROM says.
    """

    rom: RomLoader
    boots: Callable[[bytes], bytes] | None = None
    starts: Callable[[], bytes] | None = None
    download: bool = False
    plugged: bool = True
    resets: list = field(default_factory=list)

    def reset(self, download):
        self.rom.restart()
        self.download = download
        self.resets.append("download" if download else "normal")
        if self.rom.fault.silent:
            return b""
        if download:
            return WAITING
        if self.rom.blank:
            return BLANK
        return self.starts() if self.starts else b""

    def feed(self, octets):
        try:
            if self.download:
                return self.rom.feed(octets)
        except Unplugged:
            self.plugged = False
            raise
        return self.boots(octets) if self.boots and not self.rom.blank else b""


class Lines:
    """What pyserial's RFC 2217 server part needs of a port, and the two transistors between DTR, RTS and EN, IO0."""

    def __init__(self, device, say):
        self.device, self.say = device, say
        self.baudrate, self.bytesize, self.parity, self.stopbits = 115200, 8, "N", 1
        self.xonxoff = self.rtscts = self.break_condition = self.ri = self.cd = False
        self.cts = self.dsr = True
        self.lines = {"rts": False, "dtr": False}
        self.running = True
        self.settling = None

    def change(self, name, on):
        self.lines[name] = bool(on)
        enabled = not (self.lines["rts"] and not self.lines["dtr"])
        if enabled and not self.running:  # the capacitor at EN: lines that change one after the other still count
            self.settling = threading.Timer(0.15, self.strapped)
            self.settling.start()
        self.running = enabled

    def strapped(self):
        boot_pin_low = self.lines["dtr"] and not self.lines["rts"]
        self.say(self.device.reset(boot_pin_low))

    rts = property(lambda self: self.lines["rts"], lambda self, on: self.change("rts", on))
    dtr = property(lambda self: self.lines["dtr"], lambda self, on: self.change("dtr", on))

    def reset_input_buffer(self):
        pass

    reset_output_buffer = reset_input_buffer


class Rfc2217Board:
    """A device at `port` (an RFC 2217 address on this machine) until closed. One client at a time."""

    def __init__(self, device):
        self.device = device
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = f"rfc2217://127.0.0.1:{self.listener.getsockname()[1]}"
        self.client = None
        self.sending = threading.Lock()
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        self.close()

    def close(self):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.hang_up()
        self.thread.join(5)

    def hang_up(self):
        if self.client:
            with contextlib.suppress(OSError):
                self.client.shutdown(socket.SHUT_RDWR)
            self.client.close()

    def say(self, octets):
        with self.sending, contextlib.suppress(OSError):
            if octets and self.client:
                self.client.sendall(b"".join(self.protocol.escape(octets)))

    def write(self, octets):  # what the protocol part itself says
        with self.sending:
            self.client.sendall(octets)

    def serve(self):
        lines = Lines(self.device, self.say)
        while True:
            try:
                self.client, _ = self.listener.accept()
            except OSError:
                return
            self.client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.protocol = serial.rfc2217.PortManager(lines, self)
            with contextlib.suppress(OSError):
                while octets := self.client.recv(65536):
                    try:
                        self.say(self.device.feed(b"".join(self.protocol.filter(octets))))
                    except Unplugged:
                        self.listener.close()
                        break
            self.hang_up()


class PtyBoard:
    """A device whose BOOT button is held, at the pty `port`, until closed or unplugged."""

    def __init__(self, device):
        self.device = device
        device.download = True
        self.master, self.far_end = os.openpty()
        tty.setraw(self.far_end)
        self.port = os.ttyname(self.far_end)
        self.waker, self.woken = os.pipe()
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        self.close()

    def close(self):
        os.close(self.woken)
        self.thread.join(5)
        os.close(self.waker)
        os.close(self.far_end)  # until now its number is nobody else's: esptool goes on looking for an unplugged port

    def serve(self):
        import select

        with contextlib.suppress(OSError, Unplugged):
            while self.master in select.select([self.master, self.waker], [], [])[0]:
                out = self.device.feed(os.read(self.master, 65536))
                while out:
                    out = out[os.write(self.master, out) :]
        os.close(self.master)
