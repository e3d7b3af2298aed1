"""Puts into place what the project needs, and nothing twice: `python3 tools/setup.py demo|bench|test`.

Everything but Debian packages goes into `.cache/` and `.venv/`. Packages are installed only where something is missing,
and no service is started by that. Whatever is printed goes to standard error; logs of the steps are in `.cache/logs`.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PROJECT = Path(__file__).resolve().parents[1]
CACHE = PROJECT / ".cache"
VENV = PROJECT / ".venv"
UV = "0.13.9"
LEAST_PYTHON = (3, 11)
LEAST_MICROPYTHON = (1, 24)
MICROPYTHON_PARTS = ("micropython", "libc6", "libffi8", "libmbedcrypto16", "libmbedtls21", "libmbedx509-7")
NEWER = {"debian": ("trixie", "main"), "raspbian": ("trixie", "main"), "ubuntu": ("resolute", "main universe")}
"""By the system's ID: the release, on the machine's own mirror, that has a MicroPython which is new enough."""
NARROW = {"x86_64": "i386"}
"""By the machine's kind: the architecture with 32-bit pointers whose programs it runs, as Debian calls it."""
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
LEVELS = ("demo", "bench", "test")
"""Each has what the one before has, and more."""
POLICY = Path("/usr/sbin/policy-rc.d")


class SetupError(Exception):
    """What went wrong and what to do about it."""


def say(text: str) -> None:
    """One calm line of progress."""
    sys.stderr.write(f"  {text}\n")
    sys.stderr.flush()


def run(step: str, command: Sequence[str | Path], **environment: str) -> None:
    """Runs a command of a step; its output goes to the step's log. Raises SetupError with the log's end."""
    log = CACHE / "logs" / f"{step}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file:
        file.write(f"$ {shlex.join(map(str, command))}\n")
        file.flush()
        status = subprocess.run(
            [str(part) for part in command],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
        ).returncode
    if status:
        tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-12:])
        message = (
            f"{step} failed:\n{tail}\nThe whole log: {log.relative_to(PROJECT)}. Run the same command again to go on."
        )
        raise SetupError(message)


# ------------------------------------------------------------------------------------------- packages


def missing_packages(level: str) -> list[str]:
    """Debian packages that `level` needs and this machine lacks."""
    packages = []
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    if not shutil.which("mosquitto", path=path):
        packages.append("mosquitto")
    if subprocess.run([sys.executable, "-c", "import ensurepip, venv"], check=False, capture_output=True).returncode:
        packages.append("python3-venv")
    if level == "test" and not any(shutil.which(name) for name in BROWSERS):
        packages.append("chromium")
    if level == "test" and not (shutil.which("initdb") or glob.glob("/usr/lib/postgresql/*/bin/initdb")):
        packages.append("postgresql")
    if level != "demo" and not glob.glob("/usr/share/fonts/**/NotoN*Arabic*", recursive=True):
        packages.append("fonts-noto-core")
    return packages


def privileged() -> list[str]:
    """What to put before a command that only root may run. Raises SetupError if there is no way."""
    if os.geteuid() == 0:
        return []
    if shutil.which("sudo"):
        return ["sudo"]
    message = "Packages are missing, this is not root, and there is no sudo."
    raise SetupError(message)


def install(packages: Sequence[str]) -> None:
    """Installs Debian packages without starting their services."""
    if not shutil.which("apt-get"):
        message = f"These are missing and apt-get is not here to get them; install them yourself: {' '.join(packages)}"
        raise SetupError(message)
    say(f"installing packages: {' '.join(packages)}")
    before = privileged()
    if before and sys.stdin.isatty():
        subprocess.run([*before, "-v"], check=True)  # asks for the password on the terminal, once
    quiet = ["env", "DEBIAN_FRONTEND=noninteractive"]
    with no_services(before):
        run("packages", [*before, *quiet, "apt-get", "update"])
        run("packages", [*before, *quiet, "apt-get", "install", "-y", "--no-install-recommends", *packages])


@contextlib.contextmanager
def no_services(before: Sequence[str], policy: Path = POLICY) -> Iterator[None]:
    """Keeps package scripts from starting services, by the policy that Debian defines for that; an existing one stays."""
    if policy.exists():
        yield
        return
    own = CACHE / "policy-rc.d"
    own.parent.mkdir(parents=True, exist_ok=True)
    own.write_text("#!/bin/sh\nexit 101\n", encoding="utf-8")
    run("packages", [*before, "install", "-m", "755", own, policy])
    try:
        yield
    finally:
        run("packages", [*before, "rm", "-f", policy])


# ---------------------------------------------------------------------------------------- MicroPython


def version_of(text: str) -> tuple[int, ...]:
    """The numbers that a version begins with: "1.25.0+ds-1" is (1, 25, 0)."""
    return tuple(int(part) for part in re.findall(r"\d+", text.split("+", maxsplit=1)[0])[:3])


def usable(micropython: str) -> bool:
    """Whether this MicroPython can run the firmware."""
    script = (
        "import sys, asyncio, tls, hashlib, select; print('.'.join(str(n) for n in sys.implementation.version[:3]))"
    )
    with contextlib.suppress(OSError):
        found = subprocess.run([micropython, "-c", script], check=False, capture_output=True, text=True)
        return found.returncode == 0 and version_of(found.stdout) >= LEAST_MICROPYTHON
    return False


def get_micropython() -> None:
    """Makes `.cache/bin/micropython`: the machine's own, its package, or a private copy of Debian 13's."""
    target = CACHE / "bin" / "micropython"
    if target.exists() and usable(str(target)):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    found = shutil.which("micropython")
    if found is None and _packaged():
        install(["micropython"])
        found = shutil.which("micropython")
    if found and usable(found):
        target.symlink_to(found)
        return
    say("getting MicroPython from a newer release of this system, into .cache only")
    release = platform.freedesktop_os_release()
    _unpack_micropython(target, *NEWER.get(release.get("ID", ""), NEWER["debian"]))
    if not usable(str(target)):
        target.unlink()
        message = (
            "The MicroPython of the newer release does not run here. Install MicroPython 1.24 or newer, put it on PATH."
        )
        raise SetupError(message)


def get_narrow_micropython() -> None:
    """Makes `.cache/bin/micropython32`, whose objects are as large as on the chips, if that can be had: only tests use it."""
    target = CACHE / "bin" / "micropython32"
    architecture = NARROW.get(platform.machine())
    if platform.freedesktop_os_release().get("ID") != "debian" or not architecture:
        return
    if target.exists() and usable(str(target)):
        return
    say("getting a 32-bit MicroPython, into .cache only")
    for suite in (NEWER["debian"][0], "testing"):
        with contextlib.suppress(SetupError):
            _unpack_micropython(target, suite, "main", architecture)
            if usable(str(target)):
                return
    target.unlink(missing_ok=True)
    say("none could be had: the tests that weigh the heap at 32 bits will say so and be left out")


def _packaged() -> bool:
    """Whether apt offers a MicroPython that is new enough."""
    if not shutil.which("apt-cache"):
        return False
    shown = subprocess.run(["apt-cache", "policy", "micropython"], check=False, capture_output=True, text=True).stdout
    candidate = re.search(r"Candidate: (\S+)", shown)
    return candidate is not None and version_of(candidate[1]) >= LEAST_MICROPYTHON


def debian_source(codename: str, folder: Path = Path("/etc/apt")) -> str:
    """Where this machine gets Debian from: the address of the source of suite `codename`. Raises SetupError."""
    for path in [
        *sorted(folder.glob("sources.list.d/*.sources")),
        folder / "sources.list",
        *sorted(folder.glob("sources.list.d/*.list")),
    ]:
        if not path.exists():
            continue
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".sources":
            for stanza in re.split(r"\n\s*\n", text):
                fields = dict(re.findall(r"^([\w-]+):[ \t]*(.+)$", stanza, re.MULTILINE))
                if codename in fields.get("Suites", "").split() and "main" in fields.get("Components", "").split():
                    return str(fields["URIs"]).split()[0]
        found = re.search(rf"^deb\s+(?:\[[^\]]*\]\s+)?(\S+)\s+{codename}\s+.*\bmain\b", text, re.MULTILINE)
        if found:
            return str(found[1])
    message = (
        "No Debian source was found in apt's lists to get MicroPython from. "
        "Install MicroPython 1.24 or newer, put it on PATH, and run the same command again."
    )
    raise SetupError(message)


def _unpack_micropython(target: Path, suite: str, component: str, architecture: str = "") -> None:
    release = platform.freedesktop_os_release()
    source = debian_source(release.get("VERSION_CODENAME", ""))
    folder = CACHE / target.name
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("lists/partial", "archives/partial", "root", "debs"):
        (folder / name).mkdir(parents=True)
    keyring = Path(f"/usr/share/keyrings/{release.get('ID', '')}-archive-keyring.gpg")
    about = [f"signed-by={keyring}"] if keyring.exists() else []
    about += [f"arch={architecture}"] if architecture else []
    told = f"[{' '.join(about)}] " if about else ""
    (folder / "sources.list").write_text(f"deb {told}{source} {suite} {component}\n", encoding="utf-8")
    other = {"APT::Architecture": architecture, "APT::Architectures": architecture} if architecture else {}
    options = [
        *(
            f"-o{key}={value}"
            for key, value in {
                "Dir::Etc::SourceList": folder / "sources.list",
                "Dir::Etc::SourceParts": "/dev/null",
                "Dir::State::Lists": folder / "lists",
                "Dir::Cache::Archives": folder / "archives",
                "Dir::Cache::pkgcache": "",
                "Dir::Cache::srcpkgcache": "",
                "APT::Sandbox::User": "root",
                **other,
            }.items()
        ),
    ]
    run(target.name, ["apt-get", *options, "update"])
    debs = folder / "debs"
    run(target.name, ["sh", "-c", 'cd "$0" && exec "$@"', debs, "apt-get", *options, "download", *MICROPYTHON_PARTS])
    for deb in debs.glob("*.deb"):
        run(target.name, ["dpkg", "-x", deb, folder / "root"])
    loaders = sorted((folder / "root").glob("usr/lib*/**/ld-linux*.so.*"))
    libraries = sorted((folder / "root").glob("usr/lib/*-linux-gnu*"))
    if not loaders or not libraries:
        message = f"The packages in {folder} are not laid out as expected"
        raise SetupError(message)
    binary = folder / "root" / "usr" / "bin" / "micropython"
    line = shlex.join([str(loaders[0]), "--library-path", str(libraries[0]), str(binary)])
    target.write_text(f'#!/bin/sh\nexec {line} "$@"\n', encoding="utf-8")
    target.chmod(0o755)
    shutil.rmtree(folder / "lists")
    shutil.rmtree(debs)


# --------------------------------------------------------------------------------------- Python parts


def pip_settings(listing: str) -> dict[str, str]:
    """Uv's settings that mean what pip's on this machine mean. listing: what `pip config list` prints."""
    said = dict(re.findall(r"^\S+?\.([\w-]+)='(.*)'$", listing, re.MULTILINE))
    environment = {}
    if "index-url" in said:
        environment["UV_DEFAULT_INDEX"] = said["index-url"]
    extra = [
        url
        for url in said.get("extra-index-url", "").split()
        if not url.startswith("file://") or Path(url[7:]).is_dir()
    ]
    if extra:
        environment["UV_INDEX"] = " ".join(extra)
        environment["UV_INDEX_STRATEGY"] = "unsafe-best-match"  # as pip: the lock's hashes say what is taken
    if "cert" in said:
        environment["SSL_CERT_FILE"] = said["cert"]
    return environment


def uv_environment() -> dict[str, str]:
    """The environment for uv: this machine's package index and certificates, this project's cache."""
    pip = CACHE / "uv" / "bin" / "pip"
    listing = subprocess.run([pip, "config", "list"], check=False, capture_output=True, text=True).stdout
    settings = {
        **pip_settings(listing),
        "UV_CACHE_DIR": str(CACHE / "uv-cache"),
        "UV_SYSTEM_CERTS": "1",
        "UV_NATIVE_TLS": "1",
    }
    return {key: value for key, value in settings.items() if key not in os.environ}


def get_uv() -> Path:
    """uv, of the pinned version, in `.cache/uv`."""
    uv = CACHE / "uv" / "bin" / "uv"
    if not uv.exists():
        say("getting uv")
        run("uv", [sys.executable, "-m", "venv", CACHE / "uv"])
        run("uv", [CACHE / "uv" / "bin" / "pip", "install", "--quiet", f"uv=={UV}"])
    return uv


def stamp(*paths: Path) -> str:
    """Changes whenever one of the files, this Python or the project's place does."""
    digest = hashlib.sha256(f"{sys.version}{PROJECT}{UV}".encode())
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def get_environment(level: str) -> None:
    """Makes `.venv` hold what the lock of `level` says, unless that of a higher level, which has more, is there."""
    higher = LEVELS[LEVELS.index(level) :]
    said = VENV / "stamp"
    there = said.read_text(encoding="utf-8") if said.exists() else ""
    if any(stamp(*_locks(one)) == there.strip() for one in higher):
        return
    lock, *typings = _locks(level)
    uv = get_uv()
    environment = uv_environment()
    say(f"installing Python packages of {lock.name}")
    if not (VENV / "bin" / "python").exists():
        run("environment", [uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable, VENV], **environment)
    into: list[str | Path] = ["--python", VENV / "bin" / "python"]
    run("environment", [uv, "pip", "install", "--quiet", *into, "--require-hashes", "-r", lock], **environment)
    for more in typings:
        shutil.rmtree(CACHE / "typings", ignore_errors=True)
        to: list[str | Path] = ["--target", CACHE / "typings", "--no-deps"]
        run("typings", [uv, "pip", "install", "--quiet", *into, *to, "--require-hashes", "-r", more], **environment)
    site = next((VENV / "lib").glob("python3*/site-packages"))
    (site / "tocsin.pth").write_text(f"{PROJECT}\n", encoding="utf-8")
    command = VENV / "bin" / "tocsin"
    command.write_text(f"#!{VENV}/bin/python\nfrom gateway.cli import main\n\nmain()\n", encoding="utf-8")
    command.chmod(0o755)
    said.write_text(stamp(*_locks(level)) + "\n", encoding="utf-8")


def _locks(level: str) -> list[Path]:
    """The lock files of a level."""
    names = {
        "demo": ["requirements.lock"],
        "bench": ["requirements-provision.lock"],
        "test": ["requirements-dev.lock", "requirements-typings.lock"],
    }
    return [PROJECT / name for name in names[level]]


def main() -> int:
    """Sets up one level; returns the exit status."""
    level = sys.argv[1] if len(sys.argv) > 1 else "demo"
    if level not in LEVELS:
        sys.stderr.write(f"usage: setup.py {'|'.join(LEVELS)}\n")
        return 2
    if sys.version_info < LEAST_PYTHON:
        sys.stderr.write(
            f"Python 3.11 or newer is needed; this is {platform.python_version()}. Set PYTHON=… to another one.\n"
        )
        return 1
    began = time.monotonic()
    try:
        packages = missing_packages(level)
        if packages:
            install(packages)
        get_micropython()
        if level == "test":
            get_narrow_micropython()
        get_environment(level)
    except SetupError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("Stopped. Run the same command again to go on.\n")
        return 130
    took = time.monotonic() - began
    if took > 2:
        say(f"set up in {took:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
