"""Secrets by name: in the desktop's keyring where there is one, else in one sealed file. Never in TOML, never logged.

The sealed file is AES-256-GCM under a key that scrypt makes of a passphrase (RFC 7914; 128 MB and a third of a second a
guess). The passphrase is TOCSIN_PASSPHRASE, or is asked for once in a run. A laptop that has a sealed file goes on using it,
so that a secret is never in two places.
"""

from __future__ import annotations

import base64
import json
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import keyring
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from keyring.errors import KeyringError

from provisioning import durable
from provisioning.errors import SetupFault

Ask = Callable[[str, bool], str]  # what to ask for, whether it is a new passphrase (to be typed twice) → the passphrase

LEAST_LENGTH = 8  # of a passphrase, in characters
_COST = 17  # scrypt's N is 2 to this power
_MOST_COST = 20
_SERVICE = "tocsin"
_MODES = {"auto", "keyring", "file"}


def authority_passphrase(authority: str) -> str:
    """The name of the secret that opens an authority's key."""
    return f"authority/{authority}"


def technician_token(url: str) -> str:
    """The name of the technician's token at headquarters."""
    return f"token/{url}"


def wifi_password(network: str, site: str) -> str:
    """The name of a Wi-Fi network's password."""
    return f"wifi/{site}/{network}"


class Vault:
    """The secrets of a technician's folder. Several threads may use one; several programs may use one folder.

    ask: how a person is asked for the passphrase of the sealed file; None: nobody is there. TOCSIN_VAULT in `environ`:
    keyring or file, where it is not to be chosen by what is there.
    """

    def __init__(self, folder: Path, ask: Ask | None = None, environ: Mapping[str, str] = os.environ) -> None:
        self._path = folder / "vault.json"
        self._ask = ask
        self._environ = environ
        self._keys: dict[bytes, bytes] = {}
        self._passphrase: str | None = None
        self._thread = threading.RLock()
        mode = environ.get("TOCSIN_VAULT", "auto")
        if mode not in _MODES:
            raise SetupFault(f"TOCSIN_VAULT is {mode!r}: it must be keyring, file or auto.")
        if mode == "auto":
            mode = "keyring" if not self._path.exists() and _has_keyring() else "file"
        self._in_keyring = mode == "keyring"

    def __repr__(self) -> str:
        return f"<Vault in {self.place}>"

    @property
    def place(self) -> str:
        """Where the secrets are, for a person to read."""
        return f"the keyring ({keyring.get_keyring().name})" if self._in_keyring else str(self._path)

    def get(self, name: str) -> str | None:
        """A secret; None: there is none of this name. Raises SetupFault."""
        with self._thread:
            if self._in_keyring:
                try:
                    return keyring.get_password(_SERVICE, name)
                except KeyringError as error:
                    raise _keyring_fault(error) from error
            return self._secrets(self._sealed()).get(name) if self._path.exists() else None

    def put(self, name: str, secret: str) -> None:
        """Keeps a secret in place of what was there. Raises SetupFault."""
        with self._thread:
            if self._in_keyring:
                try:
                    keyring.set_password(_SERVICE, name, secret)
                except KeyringError as error:
                    raise _keyring_fault(error) from error
            else:
                self._change({name: secret})

    def forget(self, name: str) -> None:
        """Deletes a secret, if it is there. Raises SetupFault."""
        if self.get(name) is None:
            return
        with self._thread:
            if self._in_keyring:
                try:
                    keyring.delete_password(_SERVICE, name)
                except KeyringError as error:
                    raise _keyring_fault(error) from error
            else:
                self._change({name: None})

    # ------------------------------------------------------------------------------- the sealed file

    def _change(self, changes: Mapping[str, str | None]) -> None:
        durable.make_folder(self._path.parent)
        with durable.locked(self._path.with_name(".vault.lock")):
            if self._path.exists():
                sealed = self._sealed()
                head, secrets = sealed["head"], self._secrets(sealed)
            else:
                head = json.dumps({"salt": base64.b64encode(os.urandom(16)).decode(), "cost": _COST, "version": 1})
                secrets = {}
            for name, secret in changes.items():
                if secret is None:
                    secrets.pop(name, None)
                else:
                    secrets[name] = secret
            key, nonce = self._key(head, is_new=not self._path.exists()), os.urandom(12)
            octets = AESGCM(key).encrypt(nonce, json.dumps(secrets, ensure_ascii=False).encode(), head.encode())
            text = {
                "head": head,
                "nonce": base64.b64encode(nonce).decode(),
                "sealed": base64.b64encode(octets).decode(),
            }
            durable.write(self._path, json.dumps(text, indent=1).encode() + b"\n")

    def _sealed(self) -> dict[str, str]:
        try:
            self._path.chmod(0o600)
            read = json.loads(self._path.read_bytes())
            return {name: str(read[name]) for name in ("head", "nonce", "sealed")}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self._damaged(error) from error

    def _secrets(self, sealed: Mapping[str, str]) -> dict[str, str]:
        key = self._key(sealed["head"], is_new=False)
        try:
            nonce, octets = (base64.b64decode(sealed[name], validate=True) for name in ("nonce", "sealed"))
            opened = AESGCM(key).decrypt(nonce, octets, sealed["head"].encode())
        except InvalidTag as error:
            self._keys.clear()
            self._passphrase = None
            raise SetupFault(
                f"The passphrase does not open {self._path}: run the same command again and type it again"
                f"{', or correct TOCSIN_PASSPHRASE' if self._environ.get('TOCSIN_PASSPHRASE') else ''}. If it is lost, "
                "delete the file: the secrets in it must then be given anew."
            ) from error
        except ValueError as error:
            raise self._damaged(error) from error
        return {str(name): str(secret) for name, secret in json.loads(opened).items()}

    def _key(self, head: str, *, is_new: bool) -> bytes:
        try:
            read = json.loads(head)
            salt, cost = base64.b64decode(read["salt"], validate=True), int(read["cost"])
            version = int(read["version"])
        except (ValueError, KeyError, TypeError) as error:
            raise self._damaged(error) from error
        if version != 1 or not 10 <= cost <= _MOST_COST:
            raise SetupFault(f"{self._path} was written by a newer tocsin: use that one.")
        if salt not in self._keys:
            passphrase = self._asked(is_new=is_new)
            self._keys[salt] = Scrypt(salt=salt, length=32, n=1 << cost, r=8, p=1).derive(passphrase.encode())
        return self._keys[salt]

    def _asked(self, *, is_new: bool) -> str:
        passphrase = self._environ.get("TOCSIN_PASSPHRASE") or self._passphrase
        if passphrase is None:
            if self._ask is None:
                raise SetupFault(
                    f"The secrets are sealed in {self._path}, and nobody is here to type its passphrase: "
                    "put it into TOCSIN_PASSPHRASE."
                )
            passphrase = self._ask(
                "New passphrase for the secrets on this laptop"
                if is_new
                else "Passphrase of the secrets on this laptop",
                is_new,
            )
        if is_new and len(passphrase) < LEAST_LENGTH:
            raise SetupFault(
                f"The passphrase is too short: use at least {LEAST_LENGTH} characters, best four or five words."
            )
        self._passphrase = passphrase
        return passphrase

    def _damaged(self, error: Exception) -> SetupFault:
        return SetupFault(
            f"{self._path} can't be used ({error}): put it back from a copy, or delete it and give the secrets anew."
        )


def _has_keyring() -> bool:
    try:
        return keyring.get_keyring().priority >= 1
    except (KeyringError, RuntimeError):  # a backend that finds out only now that it can't work here
        return False


def _keyring_fault(error: KeyringError) -> SetupFault:
    return SetupFault(
        f"The desktop's keyring can't be used ({error or type(error).__name__}): unlock it and run the same command again, "
        "or set TOCSIN_VAULT=file to keep secrets in a sealed file."
    )
