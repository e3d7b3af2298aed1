-- A database of the first version, from before there were revisions.
BEGIN TRANSACTION;
CREATE TABLE children (
	id TEXT NOT NULL, 
	kind TEXT NOT NULL, 
	point BLOB, 
	site TEXT DEFAULT '' NOT NULL, 
	site_name TEXT DEFAULT '' NOT NULL, 
	site_name_ur TEXT DEFAULT '' NOT NULL, 
	entrance TEXT DEFAULT '' NOT NULL, 
	entrance_name TEXT DEFAULT '' NOT NULL, 
	entrance_name_ur TEXT DEFAULT '' NOT NULL, 
	address TEXT DEFAULT '' NOT NULL, 
	phone TEXT DEFAULT '' NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "children" VALUES('clifton-gate','button',X'0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000','clifton','','','','','','','');
CREATE TABLE commands (
	id INTEGER NOT NULL, 
	child TEXT NOT NULL, 
	code INTEGER NOT NULL, 
	about TEXT DEFAULT '' NOT NULL, 
	detail BLOB, 
	boot INTEGER NOT NULL, 
	seq INTEGER NOT NULL, 
	made_at_ms INTEGER NOT NULL, 
	expires_at_ms INTEGER NOT NULL, 
	state TEXT NOT NULL, 
	"by" TEXT NOT NULL, 
	answered_at_ms INTEGER, 
	answer TEXT DEFAULT '' NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (child, boot, seq)
);
CREATE TABLE deliveries (
	entry INTEGER NOT NULL, 
	parent TEXT NOT NULL, 
	kind INTEGER NOT NULL, 
	stage INTEGER, 
	PRIMARY KEY (entry, parent), 
	FOREIGN KEY(entry) REFERENCES journal (id)
);
INSERT INTO "deliveries" VALUES(1,'hq',1,2);
INSERT INTO "deliveries" VALUES(2,'hq',1,NULL);
INSERT INTO "deliveries" VALUES(3,'hq',1,NULL);
CREATE TABLE enrolments (
	id TEXT NOT NULL, 
	state TEXT NOT NULL, 
	mac TEXT DEFAULT '' NOT NULL, 
	"by" TEXT DEFAULT '' NOT NULL, 
	replaces TEXT, 
	enrolled_at_ms INTEGER, 
	expires_at_ms INTEGER, 
	retired_at_ms INTEGER, 
	why TEXT DEFAULT '' NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(id) REFERENCES children (id)
);
CREATE TABLE incidents (
	id INTEGER NOT NULL, 
	device TEXT NOT NULL, 
	boot INTEGER NOT NULL, 
	seq INTEGER NOT NULL, 
	cause TEXT NOT NULL, 
	how TEXT NOT NULL, 
	state TEXT NOT NULL, 
	outcome TEXT, 
	PRIMARY KEY (id), 
	UNIQUE (device, boot, seq), 
	FOREIGN KEY(id) REFERENCES journal (id)
);
INSERT INTO "incidents" VALUES(1,'clifton-gate',1,1,'hold_up','both','raised',NULL);
INSERT INTO "incidents" VALUES(2,'clifton-gate',1,2,'hold_up','both','raised',NULL);
INSERT INTO "incidents" VALUES(3,'clifton-gate',1,3,'hold_up','both','raised',NULL);
CREATE TABLE journal (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	source TEXT NOT NULL, 
	boot INTEGER NOT NULL, 
	seq INTEGER NOT NULL, 
	kind INTEGER NOT NULL, 
	happened_at_ms INTEGER NOT NULL, 
	exact INTEGER NOT NULL, 
	received_at_ms INTEGER NOT NULL, 
	envelope BLOB NOT NULL, 
	hops BLOB NOT NULL, 
	UNIQUE (source, boot, seq)
);
INSERT INTO "journal" VALUES(1,'clifton-gate',1,1,1,1764000000001,1,1764000000006,X'D18451A20105044C636C6966746F6E2D67617465A04BA50001010102010305050158207CD79E3283F65DB0FF89E40FC78971877C45D094B6BB4551A197DADAFEC7FEDC',X'80');
INSERT INTO "journal" VALUES(2,'clifton-gate',1,2,1,1764000000002,1,1764000000007,X'D18451A20105044C636C6966746F6E2D67617465A04BA500010101020203050501582066EC7400A5591FC84D1C58FE1730123D2981F73A7B5C0FA6A6AC6BC7580515B1',X'80');
INSERT INTO "journal" VALUES(3,'clifton-gate',1,3,1,1764000000003,1,1764000000008,X'D18451A20105044C636C6966746F6E2D67617465A04BA50001010102030305050158201D89F7902EC8978AD39E011F10C2DE57AF3CE1AFD650EAE713B2BEC246AF82B0',X'80');
CREATE TABLE latest (
	child TEXT NOT NULL, 
	via TEXT, 
	boot INTEGER NOT NULL, 
	seq INTEGER NOT NULL, 
	heard_at_ms INTEGER NOT NULL, 
	message BLOB NOT NULL, 
	silent INTEGER NOT NULL, 
	PRIMARY KEY (child)
);
CREATE TABLE people (
	name TEXT NOT NULL, 
	full_name TEXT NOT NULL, 
	role TEXT NOT NULL, 
	password TEXT NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "people" VALUES('operator','Duty operator','operator','x');
CREATE TABLE station (
	"key" TEXT NOT NULL, 
	value TEXT NOT NULL, 
	PRIMARY KEY ("key")
);
INSERT INTO "station" VALUES('boot','1764000000');
CREATE TABLE steps (
	id INTEGER NOT NULL, 
	incident INTEGER NOT NULL, 
	state TEXT NOT NULL, 
	at_ms INTEGER NOT NULL, 
	"by" TEXT NOT NULL, 
	note TEXT NOT NULL, 
	outcome TEXT, 
	PRIMARY KEY (id), 
	FOREIGN KEY(incident) REFERENCES incidents (id)
);
CREATE TABLE tokens (
	hash BLOB NOT NULL, 
	name TEXT NOT NULL, 
	made_at_ms INTEGER NOT NULL, 
	expires_at_ms INTEGER NOT NULL, 
	ended_at_ms INTEGER, 
	PRIMARY KEY (hash)
);
CREATE INDEX journal_kind ON journal (kind, id);
CREATE INDEX ix_commands_child ON commands (child);
CREATE INDEX commands_waiting ON commands (child, code) WHERE state = 'waiting';
CREATE INDEX incidents_state ON incidents (state);
CREATE INDEX deliveries_waiting ON deliveries (parent, kind, entry) WHERE stage IS NULL;
CREATE INDEX ix_steps_incident ON steps (incident);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('journal',3);
COMMIT;
