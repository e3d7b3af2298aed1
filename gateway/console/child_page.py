"""The page of one button or station: how it is, and the commands that operators give it."""

from typing import Annotated, Literal

from fastapi import APIRouter, Form, Path, Request
from fastapi.responses import Response

from gateway.console.parts import ConsoleNow, FormSender, Problem, SignedIn, WordsNow, page, redirect
from gateway.console.streams import View
from gateway.desk import CommandRefusedError

COMMANDS = ("identify", "test", "testing", "testing_over", "reboot")
SIGNALS = ("visible", "silent", "audible")

router = APIRouter(include_in_schema=False)

Id = Annotated[str, Path(max_length=64)]


@router.get("/children/{child}")
def one(request: Request, console: ConsoleNow, visitor: SignedIn, words: WordsNow, child: Id) -> Response:
    """One child and its commands."""
    stamp = console.live.board.stamp()
    found = console.desk.child(child)
    if found is None:
        raise Problem(404, words.plain("error.404.text"))
    try:
        given = console.desk.commands(child)
    except KeyError:
        given = ()
    waiting = any(command.state == "waiting" for command in given)
    return page(request, visitor, "child.html", view=View.OLD, stamp=stamp, child=found, given=given, waiting=waiting,
                commands=COMMANDS, signals=SIGNALS)  # fmt: skip


@router.post("/children/{child}/commands")
def give(
    console: ConsoleNow,
    sender: FormSender,
    words: WordsNow,
    child: Id,
    command: Annotated[Literal["identify", "test", "testing", "testing_over", "reboot", "configuration"], Form()],
    signal: Annotated[Literal["", "visible", "silent", "audible"], Form()] = "",
) -> Response:
    """Gives a command in the operator's name, and goes back to the page."""
    if not sender.may_step:
        raise Problem(403, words.plain("child.viewer"))
    changes = {"signal": signal} if command == "configuration" else None
    try:
        console.desk.command(child, command, sender.person.name, changes=changes)
    except KeyError:
        raise Problem(404, words.plain("error.404.text")) from None
    except CommandRefusedError as refused:
        raise Problem(409, f"{refused}.") from None
    return redirect(f"/children/{child}")
