"""Commands to buttons, for programs: /api/v1/children/{id}/commands.

    POST {"command": "identify"}, "test", "testing", "testing_over" or "reboot"     an operator's session, or a technician's token
    POST {"command": "configuration", "settings": {"signal": "silent"}}     likewise
    POST {"command": "wifi", "ssid": "…", "password": "…"}            a technician's token: Authorization: Bearer …
    GET                                                               whoever is signed in, or a technician's token

The answer to a POST is the command as it was kept, 202: it waits for the button. Whoever asks again sees what became
of it. A password is in no answer, no log and no table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Request
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from gateway.console.parts import ConsoleNow, Problem, WordsNow, header_sender, signed_in
from gateway.desk import Command, CommandRefusedError

router = APIRouter(prefix="/api/v1/children", tags=["commands"])

LONGEST_S = 30 * 86_400


@dataclass(frozen=True, slots=True)
class Sender:
    """Who gives a command, or asks for those that were given."""

    name: str
    may_command: bool
    may_change_network: bool


class Changes(BaseModel):
    """Settings of a button that may change over the air; those that are absent stay."""

    model_config = ConfigDict(extra="forbid")

    signal: Literal["visible", "silent", "audible"] | None = None
    alarms_per_minute: int | None = Field(default=None, ge=4, le=6000)


class CommandGiven(BaseModel):
    """A command to give. expires_in_s: how long it is repeated to a button that is away; of "testing", the grant's end."""

    command: Literal["identify", "test", "testing", "testing_over", "reboot", "configuration", "wifi"]
    settings: Changes | None = None
    ssid: str | None = Field(default=None, max_length=32)
    password: SecretStr | None = Field(default=None, max_length=63)
    expires_in_s: int | None = Field(default=None, ge=1, le=LONGEST_S)


def sender_of(request: Request, console: ConsoleNow, words: WordsNow) -> Sender:
    """A technician by their token, or who is signed in; a POST of theirs carries their session's token."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        name = console.desk.registrar.technician(token.strip(), request.client.host if request.client else "?")
        return Sender(name, may_command=True, may_change_network=True)
    visitor = signed_in(request)
    if request.method != "GET":
        visitor = header_sender(console, visitor, words, request.headers.get("x-csrf-token", ""))
    return Sender(visitor.person.name, may_command=visitor.may_step, may_change_network=False)


SenderNow = Annotated[Sender, Depends(sender_of)]
Child = Annotated[str, Path(max_length=64)]


@router.post("/{child}/commands", status_code=202)
def give(console: ConsoleNow, sender: SenderNow, words: WordsNow, child: Child, given: CommandGiven) -> Command:
    """Gives a button a command; 409 when it can't take it, 403 when the sender may not give it."""
    network = None
    if given.command == "wifi":
        if not sender.may_change_network:
            raise Problem(403, "The network of a button is changed by a technician, with a token.")
        if given.ssid is None or given.password is None:
            raise Problem(422, 'Give the network\'s "ssid" and "password"; an open network\'s password is "".')
        network = given.ssid, given.password.get_secret_value()
    elif not sender.may_command:
        raise Problem(403, words.plain("error.403.text"))
    changes = given.settings.model_dump(exclude_none=True) if given.settings else None
    if (given.command == "configuration") != bool(changes):
        raise Problem(422, 'Give what to change with the command "configuration": "settings": {"signal": "silent"}.')
    try:
        return console.desk.command(child, given.command, sender.name, network, given.expires_in_s, changes)
    except KeyError:
        raise Problem(404, f"No child of the id {child} is known here.") from None
    except CommandRefusedError as refused:
        raise Problem(409, f"{refused}.") from None


@router.get("/{child}/commands")
def commands(console: ConsoleNow, _: SenderNow, child: Child) -> list[Command]:
    """The commands that were given to a button, newest first."""
    try:
        return list(console.desk.commands(child))
    except KeyError:
        raise Problem(404, f"No child of the id {child} is known here.") from None
