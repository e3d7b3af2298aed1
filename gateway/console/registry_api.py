"""The registry and the revocation list, for technicians' programs: JSON under /api/v1.

A technician's program sends `Authorization: Bearer <token>` (`tocsin technician` prints one); no cookie is looked at, so
that no page of another site can borrow one. A revocation list needs no token: its authority signed it. Everything may be
sent again: what is done already stays as it is.
"""

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from gateway.console.parts import ConsoleNow, Problem
from gateway.enrolment import (
    Enrolment,
    NewButton,
    NewCertificate,
    RegistryRefusedError,
    TokenRefusedError,
    UnfitError,
    UnknownChildError,
    printable,
)
from gateway.revocation import InPlace

REGISTRY = "/api/v1/registry"
_STATUS = {TokenRefusedError: 401, UnknownChildError: 404, UnfitError: 422}

router = APIRouter(prefix="/api/v1", tags=["registry"])


class Headquarters(BaseModel):
    """Which station this is, and its public message key, which goes into every button's settings."""

    station: str
    name: str
    role: str
    message_key: str


class Farewell(BaseModel):
    """Why a button is retired."""

    model_config = ConfigDict(extra="forbid")

    reason: Annotated[str, Field(min_length=1, max_length=200), AfterValidator(printable)]


def _address(request: Request) -> str:
    return request.client.host if request.client else "?"


def _technician(
    request: Request, console: ConsoleNow, authorization: Annotated[str, Header(max_length=500)] = ""
) -> str:
    """The name of the technician whose token came along."""
    scheme, _, token = authorization.partition(" ")
    return console.desk.registrar.technician(token.strip() if scheme.lower() == "bearer" else "", _address(request))


async def _octets(request: Request) -> bytes:
    return await request.body()


Technician = Annotated[str, Depends(_technician)]


@router.get("/registry/station")
def station(console: ConsoleNow, _: Technician) -> Headquarters:
    """What a button's settings say of headquarters."""
    desk = console.desk
    return Headquarters(station=desk.station, name=desk.name, role=desk.role, message_key=desk.registrar.message_key)


@router.get("/registry")
def entries(
    console: ConsoleNow, _: Technician, site: Annotated[str | None, Query(max_length=64)] = None
) -> list[Enrolment]:
    """Every entry, or those of a site."""
    return console.desk.registrar.entries(site)


@router.get("/registry/{child}")
def entry(console: ConsoleNow, _: Technician, child: str) -> Enrolment:
    """One entry."""
    return console.desk.registrar.entry(child)


@router.put("/registry/{child}", responses={201: {"model": Enrolment}})
def enrol(console: ConsoleNow, technician: Technician, child: str, wanted: NewButton, answer: Response) -> Enrolment:
    """Makes a pending entry: 201. One with the same key that is there already stays: 200."""
    made, is_new = console.desk.registrar.enrol(child, wanted, technician)
    answer.status_code = 201 if is_new else 200
    return made


@router.put("/registry/{child}/certificate", status_code=202)
def renew(console: ConsoleNow, technician: Technician, child: str, wanted: NewCertificate) -> Enrolment:
    """Sends a button a certificate for the key that it has. It keeps the old one until headquarters answered over this."""
    return console.desk.registrar.renew(child, wanted, technician)


@router.post("/registry/{child}/retire")
def retire(console: ConsoleNow, technician: Technician, child: str, farewell: Farewell) -> Enrolment:
    """Believes a button no more; its history stays with its entrance."""
    return console.desk.registrar.retire(child, farewell.reason, technician)


@router.put("/revocations")
def revoke(request: Request, console: ConsoleNow, pem: Annotated[bytes, Depends(_octets)]) -> InPlace:
    """Puts a newer list of revoked certificates, in PEM, into place."""
    return console.desk.registrar.revoke(pem, _address(request))


def problem(refusal: RegistryRefusedError) -> Problem:
    """The answer that a refusal comes to."""
    status = _STATUS.get(type(refusal), 409)
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    return Problem(status, f"{refusal}.", headers=headers)


def mistakes(error: RequestValidationError) -> str:
    """Which fields are wrong, in one sentence each."""
    told = []
    for mistake in error.errors():
        name = ".".join(str(part) for part in mistake["loc"][1:]) or "the request"
        told.append(f"{name}: {mistake['msg'].removeprefix('Value error, ')}")
    return "; ".join(told)[:500] + "."
