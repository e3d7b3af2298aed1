# What runs in a chip: boot.py, main.py, then friendly and raw REPL with raw paste, on a unix port that has none (< 1.27).
#
# Standard input is the board's pins while main.py runs, and the UART at a prompt. Exit status 10: machine.reset(),
# 11: soft reset to the friendly REPL, 12: soft reset while raw. Letters on the control pipe tell the virtual board what the
# chip is doing: x executing, r reading a prompt.

import io
import os
import sys
import time

import ffi
import vfs

WINDOW = 128
COMPILING_MS = 5  # a chip reads and compiles main.py so long at least; Ctrl-C counts from here on
_libc = ffi.open(None)
_dup2 = _libc.func("i", "dup2", "ii")
_getenv = os.getenv

UART = int(_getenv("CHIP_UART"))
CONTROL = open(int(_getenv("CHIP_CONTROL")), "wb")
START = _getenv("CHIP_START")  # "hard", "soft" or "raw"
CAN_PASTE = _getenv("CHIP_PASTE") == "1"
_out = sys.stdout.buffer
_in = sys.stdin.buffer
G = {"__name__": "__main__"}

# The flash folder becomes "/", the stand-ins for a chip's modules "/rom": the same paths as on a board.
_flash = os.getcwd()
_rom = _getenv("CHIP_ROM")
sys.path[:] = [_rom]
import _chip

vfs.umount("/")
vfs.mount(vfs.VfsPosix(_flash), "/")
vfs.mount(vfs.VfsPosix(_rom), "/rom")
os.chdir("/")
sys.path[:] = ["", "/rom", ".frozen", "/lib"]
for _name in ("os", "vfs", "io", "machine"):
    sys.modules.pop(_name, None)
_chip.limit_flash()


def tell(letter):
    CONTROL.write(letter)


def put(octets):
    _out.write(octets)


def getc():
    octet = _in.read(1)
    if not octet:
        raise SystemExit(0)
    return octet[0]


def trace(problem):
    text = io.StringIO()
    sys.print_exception(problem, text)
    return text.getvalue().encode()


def run_file(name):
    """False: it left by SystemExit, after which a chip starts softly."""
    try:
        file = open(name)
    except OSError:
        return True
    with file:
        source = file.read()
    try:
        exec(compile(source, name, "exec"), G)
    except SystemExit:
        return False
    except BaseException as problem:
        put(trace(problem))
    return True


def run(source, raw, mode="exec"):
    """True: a soft reset was asked for. raw: end mark, traceback, end mark."""
    tell(b"x")
    left = False
    error = b""
    try:
        if mode == "eval":
            value = eval(compile(source, "<stdin>", "eval"), G)
            if value is not None:
                print(repr(value))
        else:
            exec(compile(source, "<stdin>", "exec"), G)
    except SystemExit:
        left = True
    except BaseException as problem:
        error = trace(problem)
    tell(b"r")
    if raw:
        put(b"\x04" + error + b"\x04")
    else:
        put(error)
    return left


def paste():
    put(b"R\x01" + bytes([WINDOW & 255, WINDOW >> 8, 1]))
    source = bytearray()
    left = WINDOW
    while True:
        c = getc()
        if c == 4:
            put(b"\x04")
            return bytes(source)
        if c == 3:
            put(b"\x04")
            return b"raise KeyboardInterrupt"
        source.append(c)
        left -= 1
        if not left:
            put(b"\x01")
            left = WINDOW


def raw_repl(announce):
    """The next mode: an exit status, or 0 for the friendly REPL."""
    if announce:
        put(b"raw REPL; CTRL-B to exit\r\n>")
    line = bytearray()
    while True:
        c = getc()
        if c == 1:
            if line == b"\x05A" and CAN_PASTE:
                if run(paste(), True):
                    return 12
                put(b">")
            elif len(line) == 2 and line[0] == 5 and CAN_PASTE:
                put(b"R\x00>")
            else:
                put(b"raw REPL; CTRL-B to exit\r\n>")
            line = bytearray()
        elif c == 2:
            put(b"\r\n")
            return 0
        elif c == 3:
            line = bytearray()
        elif c == 4:
            put(b"OK")
            if not line:
                put(b"\r\n")
                return 12
            if run(bytes(line), True):
                return 12
            put(b">")
            line = bytearray()
        else:
            line.append(c)


def friendly(announce):
    """The next mode: an exit status, or 1 for the raw REPL."""
    if announce:
        put(
            b"MicroPython v%s on virtual; %s\r\n"
            % (".".join(str(n) for n in sys.implementation[1][:3]).encode(), b"linux")
        )
        put(b'Type "help()" for more information.\r\n')
    put(b">>> ")
    line = bytearray()
    while True:
        c = getc()
        if c == 1 and not line:
            put(b"\r\n")
            return 1
        if c == 2 and not line:
            put(b"\r\n")
            return 0
        if c == 3:
            put(b"\r\n>>> ")
            line = bytearray()
        elif c == 4 and not line:
            put(b"\r\n")
            return 11
        elif c in (10, 13):
            put(b"\r\n")
            source = bytes(line).decode().strip()
            line = bytearray()
            if source:
                try:
                    compile(source, "<stdin>", "eval")
                    mode = "eval"
                except SyntaxError:
                    mode = "exec"
                if run(source, False, mode):
                    return 11
            put(b">>> ")
        else:
            line.append(c)
            put(bytes([c]))


def main():
    tell(b"x")
    mode = 1 if START == "raw" else 0
    stays = True
    try:
        if not mode:
            time.sleep_ms(COMPILING_MS)
        stays = run_file("boot.py")
        if stays and not mode:
            stays = run_file("main.py")
    except KeyboardInterrupt:
        pass
    if not stays:
        sys.exit(11)
    _dup2(UART, 0)  # from here on, whoever reads standard input reads the UART
    announce = True
    tell(b"r")
    while mode < 10:
        try:
            mode = raw_repl(announce) if mode else friendly(announce)
            announce = True
        except KeyboardInterrupt:  # it came between two commands: as Ctrl-C at the prompt
            announce = False
            tell(b"r")
    sys.exit(mode)


main()
