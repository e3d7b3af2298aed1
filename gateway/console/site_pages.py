"""Sites and entrances: what everybody may read, and an administrator's form, which anybody's later change stops."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import Response
from starlette.datastructures import FormData

from firmware.wire import is_id
from gateway import sites
from gateway.console.pages import Number
from gateway.console.parts import Console, ConsoleNow, FormSender, Problem, SignedIn, Visitor, WordsNow, page, redirect
from gateway.console.streams import View
from gateway.console.words import Words
from gateway.enrolment import RegistryRefusedError
from gateway.sites import ENTRANCE, Site

SPARE_CONTACTS = 2  # empty rows of the form
PLAIN = ("name", "name_ur", "address", "address_ur", "position", "plan", "plan_ur", "notes")

SiteId = Annotated[str, Path(max_length=200)]
EntranceId = Annotated[str, Path(max_length=200)]


async def _typed(request: Request) -> FormData:
    return await request.form()


Typed = Annotated[FormData, Depends(_typed)]

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True)
class Form:
    """The form as it is shown: what was typed, and what is wrong with it by field."""

    site: str
    texts: Mapping[str, str]
    contacts: list[list[str]]
    entrances: list[list[str]]  # id, name, name in Urdu, position
    seen: int
    wrong: Mapping[str, str]
    is_new: bool = False


@router.get("/sites")
def all_sites(request: Request, console: ConsoleNow, visitor: SignedIn) -> Response:
    """Every site."""
    return page(
        request, visitor, "sites.html", view=View.OLD, stamp=console.live.board.stamp(), sites=console.desk.sites()
    )


@router.get("/sites/new/form")
def new_site(request: Request, visitor: SignedIn, words: WordsNow) -> Response:
    """An empty form."""
    _administrator(visitor, words)
    return _show(request, visitor, None, _form("", Site("", ""), 0, is_new=True))


@router.get("/sites/{site}")
def one_site(request: Request, console: ConsoleNow, visitor: SignedIn, words: WordsNow, site: SiteId) -> Response:
    """A site, who changed what, and the form."""
    found = _found(console, words, site)
    changes = console.desk.site_changes(site)
    return _show(request, visitor, found, _form(site, found, changes[0].number if changes else 0))


@router.post("/sites/new/form")
@router.post("/sites/{site}")
def save(
    request: Request, console: ConsoleNow, sender: FormSender, words: WordsNow, typed: Typed, site: str = ""
) -> Response:
    """Keeps what was typed, or shows it again with what is wrong."""
    _administrator(sender, words)
    is_new = not site
    site = site or _text(typed, "id")
    known = next((one for one in console.desk.sites() if one.id == site), None)
    fields = _fields(typed)
    seen = _text(typed, "seen")
    wrong = sites.cleaned(fields)[1]
    if is_new and not is_id(site):
        wrong["id"] = words.plain("sites.wrong_id")
    if is_new and known:
        wrong["id"] = words.plain("sites.there", name=known.name)
    if not is_new and known is None:
        raise Problem(404, words.plain("error.404.text"))
    if not wrong:
        try:
            console.desk.change_site(site, fields, sender.person.name, int(seen) if seen.isdecimal() else None)
        except RegistryRefusedError as refusal:
            wrong["form"] = str(refusal)
        else:
            return redirect(f"/sites/{site}")
    changes = console.desk.site_changes(site)
    form = _typed_form(site, typed, fields, changes[0].number if changes else 0, wrong, is_new=is_new)
    return _show(request, sender, None if is_new else known, form, status=422)


@router.post("/sites/{site}/changes/{number}/undo")
def undo(console: ConsoleNow, sender: FormSender, words: WordsNow, site: SiteId, number: Number) -> Response:
    """Takes a change back."""
    _administrator(sender, words)
    console.desk.undo_site(site, number, sender.person.name)
    return redirect(f"/sites/{site}")


@router.get("/sites/{site}/entrances/{entrance}")
def one_entrance(
    request: Request, console: ConsoleNow, visitor: SignedIn, words: WordsNow, site: SiteId, entrance: EntranceId
) -> Response:
    """Every button that an entrance had, and what happened there."""
    past = console.desk.entrance_past(site, entrance)
    if past is None:
        raise Problem(404, words.plain("error.404.text"))
    return page(request, visitor, "entrance.html", view=View.OLD, stamp=console.live.board.stamp(), past=past)


def _administrator(visitor: Visitor, words: Words) -> None:
    if not visitor.may_administer:
        raise Problem(403, words.plain("sites.not_administrator"))


def _found(console: Console, words: Words, site: str) -> Site:
    for one in console.desk.sites():
        if one.id == site:
            return one
    raise Problem(404, words.plain("error.404.text"))


def _show(request: Request, visitor: Visitor, site: Site | None, form: Form, status: int = 200) -> Response:
    desk = request.app.state.console.desk
    changes = desk.site_changes(site.id) if site else ()
    stamp = request.app.state.console.live.board.stamp()
    return page(
        request, visitor, "site.html", view=View.OLD, stamp=stamp, site=site, form=form, changes=changes, status=status
    )


def _form(site: str, known: Site, seen: int, *, is_new: bool = False) -> Form:
    texts = sites.fields_of(known)
    return Form(
        site=site,
        texts={name: texts.get(name, "") for name in PLAIN},
        contacts=[[one.name, one.role, one.phone] for one in known.contacts] + [["", "", ""]] * SPARE_CONTACTS,
        entrances=[[one.id, one.name, one.name_ur, str(one.position or "")] for one in known.entrances]
        + [["", "", "", ""]],
        seen=seen,
        wrong={},
        is_new=is_new,
    )


def _typed_form(
    site: str, typed: FormData, fields: Mapping[str, str], seen: int, wrong: Mapping[str, str], *, is_new: bool
) -> Form:
    """What was typed, as it was; the next try is against the change that is now the last."""
    return Form(
        site=site,
        texts={name: fields[name] for name in PLAIN},
        contacts=[*_rows(typed, "contact_name", "contact_role", "contact_phone"), ["", "", ""]],
        entrances=[*_rows(typed, "entrance_id", "entrance_name", "entrance_name_ur", "entrance_position"), [""] * 4],
        seen=seen,
        wrong=wrong,
        is_new=is_new,
    )


def _fields(typed: FormData) -> dict[str, str]:
    fields = {name: _text(typed, name) for name in PLAIN}
    fields["contacts"] = "\n".join(
        "; ".join(row) for row in _rows(typed, "contact_name", "contact_role", "contact_phone")
    )
    for entrance, *rest in _rows(typed, "entrance_id", "entrance_name", "entrance_name_ur", "entrance_position"):
        fields[f"{ENTRANCE}{entrance}"] = "; ".join(rest)
    return fields


def _rows(typed: FormData, *names: str) -> list[list[str]]:
    columns = [[str(text).strip() for text in typed.getlist(name)] for name in names]
    return [list(row) for row in zip(*columns, strict=False) if any(row)]


def _text(typed: FormData, name: str) -> str:
    text = typed.get(name, "")
    return text if isinstance(text, str) else ""
