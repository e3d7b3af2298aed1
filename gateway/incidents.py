"""The life of an incident: which step may follow, and what a step needs. Pure."""

from __future__ import annotations

from gateway.desk import NEXT_STEPS, Outcome, State, StepRefusedError

_WORDS = {
    State.RAISED: "not acknowledged",
    State.ACKNOWLEDGED: "acknowledged",
    State.RESPONDING: "being responded to",
    State.ON_SCENE: "attended on scene",
    State.CLOSED: "closed",
}


def check_step(now: State, to: State, outcome: Outcome | None, note: str) -> None:
    """Raises StepRefusedError unless an incident in the state `now` may move to `to`."""
    if to not in NEXT_STEPS[now]:
        message = f"the alarm is already {_WORDS[now]}"
        raise StepRefusedError(message)
    if to is State.CLOSED and outcome is None:
        message = "an alarm is closed with an outcome"
        raise StepRefusedError(message)
    if to is not State.CLOSED and outcome is not None:
        message = "only closing has an outcome"
        raise StepRefusedError(message)
    if len(note.encode()) > 500:
        message = "the note is longer than 500 bytes"
        raise StepRefusedError(message)
