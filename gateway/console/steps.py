"""An operator's step on an alarm, and the sentence that answers it: taken, or refused and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.console.parts import Console, Problem, Visitor, cleaned
from gateway.desk import Incident, Outcome, State, StepRefusedError

if TYPE_CHECKING:
    from gateway.console.filters import Face

LONGEST_NOTE = 500
TAKEN = (State.ACKNOWLEDGED, State.RESPONDING, State.ON_SCENE, State.CLOSED)


def take(console: Console, visitor: Visitor, face: Face, number: int, state: str, note: str, outcome: str) -> Incident:
    """Takes the step in the visitor's name. Raises Problem: 403, 404, 409 with the incident as it stands, or 422."""
    words = face.words
    if not visitor.may_step:
        raise Problem(403, words.plain("answer.viewer"))
    if state not in TAKEN or outcome not in ("", *Outcome):
        raise Problem(422, words.plain("error.422.text"))
    if state == State.CLOSED and not outcome:
        raise Problem(422, words.plain("answer.outcome"), incident=console.desk.incident(number))
    ending = Outcome(outcome) if outcome and state == State.CLOSED else None
    try:
        return console.desk.step(number, State(state), visitor.person.name, cleaned(note, LONGEST_NOTE), ending)
    except KeyError:
        raise Problem(404, words.plain("error.404.text")) from None
    except StepRefusedError as refused:
        incident = console.desk.incident(number)
        if incident is None:
            raise Problem(404, words.plain("error.404.text")) from None
        raise Problem(409, _refusal(face, incident, str(refused)), incident=incident) from refused


def taken(face: Face, incident: Incident) -> str:
    """ "Consulate, Main gate: Acknowledged"."""
    return face.words.plain(
        "answer.done",
        where=face.where(incident.place, incident.device),
        state=face.words.known("state", incident.state),
    )


def _refusal(face: Face, incident: Incident, reason: str) -> str:
    words = face.words
    stands = words.known("state", incident.state)
    if incident.steps:
        last = incident.steps[-1]
        stands = words.plain("answer.by", state=stands, who=last.by, time=face.clock(last.at_ms))
    where = face.where(incident.place, incident.device)
    sentences = [words.plain("answer.refused", where=where, state=stands)]
    if reason:
        sentences.append(words.plain("answer.reason", reason=reason))
    return " ".join(sentences)
