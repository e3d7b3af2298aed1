"""Closing a board for good: secure boot v2, flash encryption, no download over the cable, no prompt.

**This was never run on silicon.** It was tested against espefuse's own virtual chip and against a stand-in for the ROM's
serial loader. The first person who has a board to spare should follow the checklist in docs/provisioning.md, with a board
whose loss does not matter. An eFuse is a bit that goes from 0 to 1 once: nothing here can be undone by anybody.

The order is the whole art, and each run does the next part of it, from what the eFuses say:

1. A signed image without a prompt is on the board, and the board has proved itself with it (steps and self-test).
2. First burn: the key's digest, secure boot, JTAG, the ROM's own ways to read and write. The download stays open.
3. The board starts. Its bootloader, which was built for that, makes the flash's key *in the chip* (no secret crosses the
   cable), encrypts everything in place, and burns the counter. This tool never burns a flash key, nor turns a plain flash
   into one that is taken for encrypted: that would end the board.
4. Second burn, after the board proved itself once more: the counter full, the download closed, both fixed.

espefuse and espsecure (GPL) run as processes of their own. Sources: ESP32 Technical Reference Manual (eFuse Controller),
ESP-IDF programming guide (Secure Boot V2, Flash Encryption, for the ESP32).
"""

import hashlib
import json
import re
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from provisioning import flash, images
from provisioning.errors import BoardFault, BoardLost, FlashFault, SetupFault, WrongBoard

TIMEOUT_S = 60
REVISION = 3  # secure boot v2 and a closed download exist from v3.0 on
PROMPT = b"raw REPL; CTRL-B to exit"  # in every MicroPython that still has one on its UART
COUNTER_FULL = 0x7F
FIX_COUNTER, FIX_READING, FIX_DIGEST = 1 << 2, 1 << 0, 1 << 8  # bits of WR_DIS
SECTOR = 4096

NEVER_ON_SILICON = "This was never run on a real chip, only on espefuse's virtual one: use a board that you can lose, and the checklist."
CANNOT_BE_UNDONE = (
    "An eFuse can't be cleared: not by this tool, not by the chip's maker.",
    "From then on the board starts only what your signing key signed. Lose that key, and it can never be updated.",
    "Once encrypted, the flash can't be read over the cable or from its pins, by you either.",
    "Once the download is closed, esptool and espefuse can't reach the chip: updates come over the network or not at all.",
    "A board that is cut off from power while it encrypts itself (up to a minute) may be lost.",
)


@dataclass(frozen=True)
class Reach:
    """How espefuse gets to the chip: at a port, or a virtual one in a file (tests, and trying it out)."""

    port: str = ""
    before: flash.Before = "default-reset"
    virtual: Path | None = None

    @property
    def arguments(self) -> list[str]:
        """The options that espefuse wants for it."""
        if self.virtual is not None:
            return ["--chip", "esp32", "--virt", "--path-efuse-file", str(self.virtual.absolute())]
        after = "no-reset" if self.before == "no-reset" else "hard-reset"
        return ["--chip", "esp32", "--port", self.port, "--before", self.before, "--after", after]

    def __str__(self) -> str:
        """What to call it."""
        return self.port or f"the virtual chip in {self.virtual}"


@dataclass(frozen=True)
class Fuse:
    """One eFuse field: its value (None: the chip does not show it) and whether it can still be burned."""

    name: str
    value: int | None
    open: bool


@dataclass(frozen=True)
class Fuses:
    """All eFuses of a chip. revision: the major one; mac: as on the label."""

    mac: str
    revision: int
    fields: dict[str, Fuse]

    def value(self, name: str) -> int:
        """The field's value; 0 when the chip does not show it."""
        return self.fields[name].value or 0

    @property
    def encrypted(self) -> bool:
        """An odd number of bits in the counter."""
        return self.value("FLASH_CRYPT_CNT").bit_count() % 2 == 1


@dataclass(frozen=True)
class Burn:
    """One eFuse that would be burned: from what to what, what that means, and that it is for ever."""

    name: str
    now: str
    then: str
    meaning: str
    irreversible: bool = True


@dataclass(frozen=True)
class Plan:
    """What the next burn is. stage: "first", "wait" (the board's own turn), "second" or "done"; by_itself: what the
    board's bootloader burns, not this tool.
    """

    stage: str
    burns: tuple[Burn, ...]
    by_itself: tuple[Burn, ...] = ()
    refusals: tuple[str, ...] = ()


@dataclass(frozen=True)
class Proven:
    """Who the board proved to be: its id, its MAC, and whether headquarters believes it now (enrolled, a fresh message)."""

    id: str
    mac: str
    believed: bool


@dataclass(frozen=True)
class Signed:
    """An image that the chip would start after the first burn. digest: of the public key, as it goes into the chip."""

    path: Path
    sha256: str
    digest: bytes
    key: Path


@dataclass(frozen=True)
class Outcome:
    """What `lock` did. read_back: the burned eFuses were read again and are as planned (impossible once closed)."""

    plan: Plan
    burned: bool = False
    read_back: bool = False
    warnings: tuple[str, ...] = field(default=(NEVER_ON_SILICON, *CANNOT_BE_UNDONE))


def read(reach: Reach) -> Fuses:
    """Every eFuse of the chip; burns nothing. Raises what flash.fault makes of espefuse's words."""
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "efuses.json"
        _espefuse(reach, ["summary", "--format", "json", "--file", str(kept)])
        said: dict[str, dict[str, Any]] = json.loads(kept.read_text("utf-8"))
    fields = {name: Fuse(name, _number(row), bool(row["writeable"])) for name, row in said.items()}
    mac = str(said["MAC"]["value"]).split(" ", 1)[0].lower()
    return Fuses(mac, int(said["WAFER_VERSION_MAJOR"]["value"]), fields)


def signed_image(path: Path, key: Path) -> Signed:
    """Checks that bootloader and application are signed by `key` (a public one), encryptable, and without a prompt.

    Raises SetupFault or FlashFault, in words.
    """
    try:
        pem, octets = key.read_bytes(), path.read_bytes()
    except OSError as fault:
        raise SetupFault(f"{fault.filename} can't be read ({fault.strerror})") from fault
    if b"PRIVATE" in pem:
        raise SetupFault(
            f"{key} is the private signing key: it must not be at the bench. Make the public one where the private one lives "
            "(espsecure extract-public-key --version 2 --keyfile PRIVATE PUBLIC) and give that"
        )
    anatomy = images.examine(octets)
    with tempfile.TemporaryDirectory() as folder:
        for what, part in (("bootloader", anatomy.bootloader), ("application", anatomy.application)):
            begin = part.offset - images.OFFSET
            end = begin + part.length + -part.length % SECTOR + SECTOR  # the signature has the sector after the program
            program = Path(folder) / what
            program.write_bytes(octets[begin:end])
            ended = flash.tool(
                "espsecure",
                ["verify-signature", "--version", "2", "--keyfile", str(key.absolute()), str(program)],
                TIMEOUT_S,
            )
            if ended.status or "verification successful" not in ended.said:
                raise FlashFault(f"{path}: the {what} is not signed by {key.name}: a locked board would not start it")
        digest = Path(folder) / "digest"
        _espsecure(["digest-sbv2-public-key", "--keyfile", str(key.absolute()), "--output", str(digest)])
        vfs = anatomy.partition("vfs")
        if not vfs.encrypted:
            raise FlashFault(
                f"{path}: its 'vfs' partition is not marked as encrypted: the board's key would stay readable"
            )
        if PROMPT in octets:
            raise FlashFault(
                f"{path} still has MicroPython's prompt on the cable: build it without (docs/provisioning.md)"
            )
        return Signed(path, hashlib.sha256(octets).hexdigest(), digest.read_bytes(), key)


def plan(fuses: Fuses, proven: Proven | None, signed: Signed | None) -> Plan:
    """The next burn from where the chip is, and why it must not be done. Decides only; touches nothing."""
    refusals = _refusals(fuses, proven, signed)
    counter = fuses.value("FLASH_CRYPT_CNT")
    first = _first(fuses, signed)
    if not fuses.encrypted:
        burns = tuple(burn for burn in first if burn.now != burn.then)
        if burns and signed is None:
            refusals += (
                "No signed image was given: burned now, the board would never start again. Give --signed and --public-key",
            )
        itself = (
            Burn("BLOCK1", "empty", "a key that only the chip knows", "The flash's key, made by the board itself"),
            Burn(
                "FLASH_CRYPT_CONFIG",
                f"{fuses.value('FLASH_CRYPT_CONFIG'):#x}",
                "0xf",
                "The key is varied with the address",
            ),
            Burn(
                "FLASH_CRYPT_CNT", f"{counter:#04x}", "0x01", "The flash is taken for encrypted from the next start on"
            ),
        )
        return Plan("first" if burns else "wait", burns, itself, refusals)
    if any(burn.now != burn.then for burn in first if burn.name != "BLOCK2") or not fuses.value("BLOCK2"):
        refusals += (
            "The flash is encrypted, but secure boot is not on: somebody else began this. Put the board aside",
        )
    burns = tuple(burn for burn in _second(fuses) if burn.now != burn.then)
    if any(not fuses.fields[burn.name].open for burn in burns):
        refusals += (
            "The board's bootloader fixed FLASH_CRYPT_CNT, so the download can't be closed any more: build it so that it does not",
        )
    if not burns:
        return Plan("done", (), (), ())
    return Plan("second", burns, (), refusals)


def lock(reach: Reach, proven: Proven | None, signed: Signed | None, *, burn: bool = False, typed: str = "") -> Outcome:
    """Shows the next burn (dry run), or with `burn` and the board's id typed does it, and reads the eFuses again.

    Raises SetupFault with every reason why it must not be burned, WrongBoard when another id was typed, BoardFault when
    the chip holds something else than planned afterwards.
    """
    before = read(reach)
    planned = plan(before, proven, signed)
    if not burn or not planned.burns:
        return Outcome(planned)
    if planned.refusals:
        raise SetupFault("Nothing was burned. " + " ".join(f"{reason}." for reason in planned.refusals))
    if proven is None or typed != proven.id:
        wanted = proven.id if proven else "the board's"
        raise WrongBoard(
            f"Nothing was burned: {typed!r} was typed, the board is {wanted!r}. Type its id exactly to go on"
        )
    if planned.stage == "first" and signed is not None and reach.virtual is None:
        _holds(reach, signed)
    _espefuse(reach, ["--do-not-confirm", *_commands(planned, signed)], "Successful")
    if planned.stage == "second" and reach.virtual is None:
        return Outcome(planned, burned=True)  # the download is closed: espefuse confirmed it on the same connection
    _as_planned(before, read(reach), planned, signed)
    return Outcome(planned, burned=True, read_back=True)


def _refusals(fuses: Fuses, proven: Proven | None, signed: Signed | None) -> tuple[str, ...]:
    found = []
    if fuses.revision < REVISION:
        found.append(
            f"This chip is of revision v{fuses.revision}; secure boot v2 and a closed download need v{REVISION}.0 or newer. "
            "It can't be locked: use it unlocked where nobody can open it, or take a newer board"
        )
    if proven is None or not proven.believed:
        found.append(
            "The board has not proved who it is: lock it only after it was enrolled, tested (tocsin provision test), and "
            "believed by headquarters"
        )
    elif proven.mac.lower() != fuses.mac:
        found.append(
            f"The board that proved itself has the MAC {proven.mac}, this chip {fuses.mac}: it is another board"
        )
    if fuses.value("CODING_SCHEME"):
        found.append("This chip's key blocks are coded (CODING_SCHEME): secure boot v2 has no room for its digest")
    if fuses.value("ABS_DONE_0"):
        found.append("Secure boot v1 is on already: v2 can't be added")
    if signed and fuses.value("BLOCK2") not in {0, int.from_bytes(signed.digest, "little")}:
        found.append("The chip holds the digest of another key (BLOCK2): it starts only what that key signed")
    if fuses.value("FLASH_CRYPT_CNT") and not fuses.encrypted:
        found.append("The flash was encrypted once and is not now: what it holds is unknown. Put the board aside")
    if fuses.value("RD_DIS") & 2:
        found.append("Reading of BLOCK2 is disabled: secure boot v2 could not compare, and the board would never start")
    return tuple(found)


def _first(fuses: Fuses, signed: Signed | None) -> tuple[Burn, ...]:
    digest = fuses.value("BLOCK2")
    wanted = int.from_bytes(signed.digest, "little") if signed else 0
    shown = digest.to_bytes(32, "little").hex() if digest else "empty"
    then = wanted.to_bytes(32, "little").hex() if wanted else "digest of your public key"
    return (
        Burn(
            "BLOCK2",
            shown,
            shown if digest else then,
            "The key whose signature the chip asks for; can't be changed after",
        ),
        *(
            Burn(name, str(fuses.value(name)), "1", meaning)
            for name, meaning in (
                ("ABS_DONE_1", "Secure boot v2: the chip starts only a bootloader that this key signed"),
                ("JTAG_DISABLE", "No debugger can be attached to the chip's pins"),
                ("CONSOLE_DEBUG_DISABLE", "The ROM's BASIC no longer appears when the flash does not start"),
                ("DISABLE_DL_ENCRYPT", "Nobody can have the ROM encrypt something of theirs with the chip's key"),
                ("DISABLE_DL_DECRYPT", "Nobody can have the ROM decrypt the flash over the cable"),
                ("DISABLE_DL_CACHE", "Nobody can read the decrypted flash through the ROM's cache"),
            )
        ),
    )


def _second(fuses: Fuses) -> tuple[Burn, ...]:
    fixed = fuses.value("WR_DIS")
    return (
        Burn("FLASH_CRYPT_CNT", f"{fuses.value('FLASH_CRYPT_CNT'):#04x}", f"{COUNTER_FULL:#04x}",
             "The flash stays encrypted: the counter has no bit left to turn it off"),
        Burn("UART_DOWNLOAD_DIS", str(fuses.value("UART_DOWNLOAD_DIS")), "1",
             "The chip takes no more firmware over the cable, and esptool can't reach it"),
        Burn("WR_DIS", f"{fixed:#06x}", f"{fixed | FIX_COUNTER | FIX_READING | FIX_DIGEST:#06x}",
             "The two above are fixed, and nobody can make the digest unreadable, which would end the board"),
    )  # fmt: skip


def _commands(planned: Plan, signed: Signed | None) -> list[str]:
    """One run of espefuse, so that all of it is burned together or none."""
    commands = []
    if any(burn.name == "BLOCK2" for burn in planned.burns) and signed is not None:
        commands += ["burn-key-digest", str(signed.key.absolute())]
    pairs = [(burn.name, burn.then) for burn in planned.burns if burn.name != "BLOCK2"]
    if pairs:
        commands += ["burn-efuse", *(word for pair in pairs for word in pair)]
    return commands


def _as_planned(before: Fuses, after: Fuses, planned: Plan, signed: Signed | None) -> None:
    """Exactly what was planned changed, and nothing else."""
    wanted = {burn.name: int(burn.then, 0) for burn in planned.burns if burn.name != "BLOCK2"}
    if signed and any(burn.name == "BLOCK2" for burn in planned.burns):
        wanted["BLOCK2"] = int.from_bytes(signed.digest, "little")
        wanted["WR_DIS"] = before.value("WR_DIS") | FIX_DIGEST  # burn-key-digest fixes the block
    for name, fuse in after.fields.items():
        expected = wanted.get(name, before.fields[name].value)
        if fuse.value != expected:
            raise BoardFault(
                f"After the burn {name} is {fuse.value!r} and should be {expected!r}. Put the board aside and report this"
            )


def _holds(reach: Reach, signed: Signed) -> None:
    """The chip's flash holds the signed image, by its MD5, before anything that demands it is burned."""
    size = signed.path.stat().st_size
    image = images.Image(images.Pin("signed", "", "ESP32", signed.sha256, size), signed.path)
    try:
        flash.verify(reach.port, image, before=reach.before)
    except FlashFault as fault:
        raise SetupFault(
            f"Nothing was burned: the board does not hold {signed.path.name} now ({fault}). Flash it, test the board, then "
            "lock it"
        ) from fault


def _number(row: dict[str, Any]) -> int | None:
    """A field's raw bits as a number; a block's octets, first octet lowest. None when the chip hides it."""
    value = str(row["value"])
    if re.fullmatch(r"(?:[0-9a-f?]{2} )+[0-9a-f?]{2}", value):
        return None if "?" in value else int.from_bytes(bytes.fromhex(value), "little")
    return int(str(row["raw_value"]), 16) if "?" not in str(row["raw_value"]) else None


def _espefuse(reach: Reach, arguments: list[str], proof: str = "") -> str:
    try:
        ended = flash.tool("espefuse", [*reach.arguments, *arguments], TIMEOUT_S)
    except TimeoutError:
        raise BoardLost(f"{reach}: the chip stopped answering: plug it in again and run the same command") from None
    if ended.status or proof not in ended.said:
        raise flash.fault(ended.said, str(reach))
    return ended.said


def _espsecure(arguments: list[str]) -> None:
    ended = flash.tool("espsecure", arguments, TIMEOUT_S)
    if ended.status:
        raise SetupFault(f"The signing key can't be used: {ended.said.strip()[-300:]}")
