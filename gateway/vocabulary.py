"""The numbers of the wire in the words of the desk and of the database."""

from firmware import wire
from gateway.desk import State

CODES = {
    wire.STARTED: "started",
    wire.LOOP_CUT: "loop_cut",
    wire.LOOP_SHORTED: "loop_shorted",
    wire.LOOP_RESTORED: "loop_restored",
    wire.TAMPERED: "tampered",
    wire.TAMPER_RESTORED: "tamper_restored",
    wire.LOOP_FAULT: "loop_faulty",
    wire.EVENTS_DROPPED: "events_dropped",
    wire.COMMAND_DONE: "command_done",
    wire.COMMAND_FAILED: "command_failed",
    wire.FAULTED: "faulted",
    wire.UPDATE_TRIAL: "update_trial",
    wire.STILL_PRESSED: "still_pressed",
    wire.CONTACT_CHATTERS: "contact_chatters",
    wire.CONTACT_STUCK: "contact_stuck",
    wire.PATH_CHANGED: "path_changed",
    wire.SPARE_LOST: "spare_lost",
    wire.SPARE_BACK: "spare_back",
    wire.TESTING_BEGUN: "testing_begun",
    wire.TESTING_ENDED: "testing_ended",
    wire.CHILD_SILENT: "child_silent",
    wire.CHILD_BACK: "child_back",
    wire.BROKER_LOST: "broker_lost",
    wire.BROKER_BACK: "broker_back",
    wire.REFUSAL: "refusal",
    wire.STATION_STARTED: "started",
    wire.STORAGE_FAILED: "storage_failed",
    wire.ENROLMENT_BEGUN: "enrolment_begun",
    wire.ENROLLED: "enrolled",
    wire.ENROLMENT_EXPIRED: "enrolment_expired",
    wire.RETIRED: "retired",
    wire.REVOCATIONS: "revocations",
    wire.MANY_SILENT: "many_silent",
    wire.MANY_BACK: "many_back",
    wire.MAINTENANCE: "maintenance",
    wire.MAINTENANCE_ENDED: "maintenance_ended",
    wire.JOURNAL_LACKS: "journal_lacks",
    wire.STEP_ACKNOWLEDGED: "acknowledged",
    wire.STEP_RESPONDING: "responding",
    wire.STEP_ON_SCENE: "on_scene",
    wire.STEP_CLOSED: "closed",
    wire.STORAGE_RESTORED: "storage_restored",
    wire.CLOCK_JUMPED: "clock_jumped",
    wire.CHECKPOINT: "checkpoint",
    wire.REGISTRY_ENTRY: "registry_entry",
    wire.SITE_CHANGED: "site_changed",
    wire.ROLLOUT: "rollout",
}
CAUSES = {wire.HOLD_UP: "hold_up", wire.DURESS: "duress", wire.MEDICAL: "medical", wire.TEST: "test"}
HOWS = {wire.BOTH_CONTACTS: "both", wire.CONTACT_A: "contact_a", wire.CONTACT_B: "contact_b"}
LOOPS = {
    wire.LOOP_AT_REST: "rest",
    wire.LOOP_PRESSED: "pressed",
    wire.LOOP_IS_CUT: "cut",
    wire.LOOP_IS_SHORTED: "shorted",
    wire.LOOP_IS_FAULTY: "faulty",
}
PATHS = {wire.BY_CABLE: "cable", wire.BY_WIFI: "wifi"}
SPARES = {wire.NO_SPARE: "none", wire.SPARE_READY: "ready", wire.SPARE_DEAD: "dead"}
TESTINGS = {1: "granted", 2: "on"}
STAGES = {
    State.RAISED: wire.AT_HQ,
    State.ACKNOWLEDGED: wire.ACKNOWLEDGED,
    State.RESPONDING: wire.RESPONDING,
    State.ON_SCENE: wire.RESPONDING,
    State.CLOSED: wire.CLOSED,
}
"""What a button is told of an incident's state: the stage of the receipt."""
STEPS = {
    State.ACKNOWLEDGED: wire.STEP_ACKNOWLEDGED,
    State.RESPONDING: wire.STEP_RESPONDING,
    State.ON_SCENE: wire.STEP_ON_SCENE,
    State.CLOSED: wire.STEP_CLOSED,
}
"""The event that a step is journaled as."""
STATES = {wire.ACKNOWLEDGED: State.ACKNOWLEDGED, wire.RESPONDING: State.RESPONDING, wire.CLOSED: State.CLOSED}
"""What a station below headquarters learns from a receipt that passes through it."""

# Entries of DETAIL, where it is a map. Of a step:
STEP_BOOT = 0
STEP_SEQ = 1
STEP_BY = 2
STEP_NOTE = 3
STEP_OUTCOME = 4
# Of a refusal:
REFUSAL_WHY = 0
REFUSAL_COUNT = 1
# Of many children, silent or back:
MANY_WHY = 10
MANY_NAMED = 11
MANY_COUNT = 12
# Of a maintenance:
MAINTENANCE_BY = 13
MAINTENANCE_UNTIL_MS = 14
# Of a change of a site:
SITE_BY = 16
SITE_FIELDS = 17  # [[field, what it says now or a piece of that, number of the piece from 0, pieces], …]
SITE_CHANGE = 18  # number of the change within the site
SITE_OFFICIAL = 19  # 1: an administrator's
SITE_AT = 20  # UTC, ms
