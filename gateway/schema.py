"""The tables of a station's database. A change here needs a migration in gateway/migrations, and its number below."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

REVISION = "0005"  # of the newest migration

Big = BigInteger().with_variant(Integer(), "sqlite")  # SQLite numbers rows only in a column of type INTEGER

metadata = MetaData()

journal = Table(
    "journal",
    metadata,
    Column("id", Big, primary_key=True),
    Column("source", Text, nullable=False),  # whose message: the kid
    Column("boot", Big, nullable=False),
    Column("seq", Big, nullable=False),
    Column("kind", Integer, nullable=False),  # the wire's, or journal.RECORD
    Column("happened_at_ms", Big, nullable=False),
    Column("exact", Integer, nullable=False),  # 0: it happened at that time or earlier
    Column("received_at_ms", Big, nullable=False),
    Column("envelope", LargeBinary, nullable=False),  # verbatim
    Column("hops", LargeBinary, nullable=False),  # CBOR, as in a frame
    Column("chain", LargeBinary),  # 32 bytes over this entry and the one before: gateway/chain.py
    UniqueConstraint("source", "boot", "seq"),
    sqlite_autoincrement=True,
)
Index("journal_kind", journal.c.kind, journal.c.id)

checkpoints = Table(  # of the chain, signed by the station
    "checkpoints",
    metadata,
    Column("position", Big, primary_key=True, autoincrement=False),  # of the entry that it covers last
    Column("cut", Integer, primary_key=True, autoincrement=False),  # 1: what is before was deleted by `retain`
    Column("chain", LargeBinary, nullable=False),
    Column("count", Big, nullable=False),  # of the entries up to there that ever were
    Column("at_ms", Big, nullable=False),
    Column("signature", LargeBinary, nullable=False),
)

deleted_alarms = Table(  # by `retain`: one that comes again is no new one
    "deleted_alarms",
    metadata,
    Column("source", Text, primary_key=True),
    Column("boot", Big, primary_key=True, autoincrement=False),
    Column("seq", Big, primary_key=True, autoincrement=False),
)

deleted_events = Table(
    "deleted_events",
    metadata,
    Column("source", Text, primary_key=True),
    Column("boot", Big, primary_key=True, autoincrement=False),
    Column("seq", Big, nullable=False),  # of the newest one
)

incidents = Table(
    "incidents",
    metadata,
    Column("id", Big, ForeignKey(journal.c.id), primary_key=True),
    Column("device", Text, nullable=False),
    Column("boot", Big, nullable=False),
    Column("seq", Big, nullable=False),
    Column("cause", Text, nullable=False),
    Column("how", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("outcome", Text),
    UniqueConstraint("device", "boot", "seq"),
)
Index("incidents_state", incidents.c.state)

steps = Table(
    "steps",
    metadata,
    Column("id", Big, primary_key=True),
    Column("incident", Big, ForeignKey(incidents.c.id), nullable=False, index=True),
    Column("state", Text, nullable=False),
    Column("at_ms", Big, nullable=False),
    Column("by", Text, nullable=False),
    Column("note", Text, nullable=False),
    Column("outcome", Text),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("entry", Big, ForeignKey(journal.c.id), primary_key=True),
    Column("parent", Text, primary_key=True),
    Column("kind", Integer, nullable=False),
    Column("stage", Integer),  # of the parent's newest receipt; 0: refused by it; null: none yet
    Column("at_ms", Big),  # when the parent's first receipt came, UTC
    Column("stage_at_ms", Big),  # when the newest one came, that of `stage`
)
Index(
    "deliveries_waiting",
    deliveries.c.parent,
    deliveries.c.kind,
    deliveries.c.entry,
    sqlite_where=deliveries.c.stage.is_(None),
    postgresql_where=deliveries.c.stage.is_(None),
)

children = Table(
    "children",
    metadata,
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),  # button, station
    Column("point", LargeBinary),  # the certificate's public key, 65 bytes; null: not enrolled, only seen
    Column("site", Text, nullable=False, server_default=""),  # of `sites`; empty: its place was not entered
    Column("entrance", Text, nullable=False, server_default=""),  # of `entrances`; empty: a station
    Column("certified_until_ms", Big),  # when its certificate ends; null: not known
    Column("vouches", Integer, nullable=False, server_default="0"),  # a station that speaks for children unknown here
)

sites = Table(
    "sites",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    *[
        Column(name, Text, nullable=False, server_default="")
        for name in ("name_ur", "address", "address_ur", "plan", "plan_ur", "notes")
    ],
    Column("latitude", Float(53)),  # WGS 84, degrees
    Column("longitude", Float(53)),
)

contacts = Table(  # of sites, in the order to call them
    "contacts",
    metadata,
    Column("site", Text, ForeignKey(sites.c.id), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("name", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("phone", Text, nullable=False),
)

entrances = Table(
    "entrances",
    metadata,
    Column("site", Text, ForeignKey(sites.c.id), primary_key=True),
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("name_ur", Text, nullable=False, server_default=""),
    Column("latitude", Float(53)),
    Column("longitude", Float(53)),
)

site_changes = Table(  # every save of a site, field by field; the same is in the journal
    "site_changes",
    metadata,
    Column("site", Text, ForeignKey(sites.c.id), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("field", Text, primary_key=True),
    Column("at_ms", Big, nullable=False),
    Column("by", Text, nullable=False),
    Column("official", Integer, nullable=False),  # 1: an administrator's, which no technician's laptop overwrites
    Column("before", Text, nullable=False),
    Column("after", Text, nullable=False),
)

enrolments = Table(  # how an entry of `children` came about and ended; those of `tocsin enrol` have no row here
    "enrolments",
    metadata,
    Column("id", Text, ForeignKey(children.c.id), primary_key=True),
    Column("state", Text, nullable=False),  # pending, enrolled, retired
    Column("mac", Text, nullable=False, server_default=""),  # of the board, as a technician reads it
    Column("by", Text, nullable=False, server_default=""),  # the technician
    Column("replaces", Text),  # the child that is retired once this one is believed
    Column("enrolled_at_ms", Big),  # when its first message was believed
    Column("expires_at_ms", Big),  # of a pending entry
    Column("retired_at_ms", Big),
    Column("why", Text, nullable=False, server_default=""),  # it was retired
)

tokens = Table(  # of technicians; what they carry is kept as a hash only
    "tokens",
    metadata,
    Column("hash", LargeBinary, primary_key=True),  # SHA-256 of the token
    Column("name", Text, nullable=False),
    Column("made_at_ms", Big, nullable=False),
    Column("expires_at_ms", Big, nullable=False),
    Column("ended_at_ms", Big),  # taken back, or a newer one was made for the same name
)

commands = Table(  # that headquarters gave to children
    "commands",
    metadata,
    Column("id", Big, primary_key=True),
    Column("child", Text, nullable=False, index=True),
    Column("code", Integer, nullable=False),
    Column("about", Text, nullable=False, server_default=""),  # the network's name; never its password
    Column("detail", LargeBinary),  # as it is sent: encrypted for the child
    Column("boot", Big, nullable=False),
    Column("seq", Big, nullable=False),
    Column("made_at_ms", Big, nullable=False),
    Column("expires_at_ms", Big, nullable=False),
    Column("state", Text, nullable=False),  # waiting, done, failed, expired, replaced
    Column("by", Text, nullable=False),
    Column("answered_at_ms", Big),  # or when it expired or was replaced
    Column("answer", Text, nullable=False, server_default=""),  # the child's, in a sentence
    UniqueConstraint("child", "boot", "seq"),
)
Index(
    "commands_waiting",
    commands.c.child,
    commands.c.code,
    sqlite_where=commands.c.state == "waiting",
    postgresql_where=commands.c.state == "waiting",
)

latest = Table(
    "latest",
    metadata,
    Column("child", Text, primary_key=True),
    Column("via", Text),
    Column("boot", Big, nullable=False),
    Column("seq", Big, nullable=False),
    Column("heard_at_ms", Big, nullable=False),
    Column("message", LargeBinary, nullable=False),  # the last heartbeat's payload
    Column("silent", Integer, nullable=False),
)

maintenance = Table(  # children whose silence is no event for a while
    "maintenance",
    metadata,
    Column("child", Text, primary_key=True),
    Column("until_ms", Big, nullable=False),
    Column("by", Text, nullable=False),
)

people = Table(
    "people",
    metadata,
    Column("name", Text, primary_key=True),
    Column("full_name", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("password", Text, nullable=False),  # Argon2id, PHC string
)

station = Table("station", metadata, Column("key", Text, primary_key=True), Column("value", Text, nullable=False))

REGISTRY = frozenset({children, enrolments, sites, contacts, entrances, site_changes, maintenance})  # held in memory
REGISTRY_WRITTEN = "registry written"  # of `station`: another value after every transaction that writes one of those
