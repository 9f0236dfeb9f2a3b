-- Schema version 2: jobs. A program that knows version 1 only may go on writing: it books nothing
-- on jobs, and every new column has a default.

-- How long the payee held the device in this entry, how much of that without any use of it, and
-- the energy of that part; device time times the share held.
ALTER TABLE entry ADD COLUMN held_ms INTEGER NOT NULL DEFAULT 0 CHECK (held_ms >= 0);
ALTER TABLE entry ADD COLUMN held_idle_ms INTEGER NOT NULL DEFAULT 0 CHECK (held_idle_ms >= 0);
ALTER TABLE entry ADD COLUMN held_idle_uj INTEGER NOT NULL DEFAULT 0 CHECK (held_idle_uj >= 0);
ALTER TABLE entry_hour ADD COLUMN held_ms INTEGER NOT NULL DEFAULT 0 CHECK (held_ms >= 0);
ALTER TABLE entry_hour ADD COLUMN held_idle_ms INTEGER NOT NULL DEFAULT 0 CHECK (held_idle_ms >= 0);
ALTER TABLE entry_hour ADD COLUMN held_idle_uj INTEGER NOT NULL DEFAULT 0 CHECK (held_idle_uj >= 0);
CREATE INDEX entry_payee ON entry (payee_id, slot_s);
CREATE INDEX entry_hour_payee ON entry_hour (payee_id, hour_s);

-- A job's run: who it is, and where a restarted daemon finds it again. Never deleted.
CREATE TABLE run (
    payee_id        INTEGER PRIMARY KEY REFERENCES payee (id),
    start_ns        INTEGER NOT NULL,               -- as in payee, to be sorted by
    end_ns          INTEGER NOT NULL DEFAULT 0,     -- wall clock; 0: it runs
    last_seen_ns    INTEGER NOT NULL,
    uid             INTEGER,
    user            TEXT NOT NULL DEFAULT '',
    labels          TEXT NOT NULL DEFAULT '{}',     -- JSON, user included
    cgroup          TEXT NOT NULL DEFAULT '',
    inode           INTEGER NOT NULL DEFAULT 0,     -- of the cgroup; with boot_id, its identity
    boot_id         TEXT NOT NULL DEFAULT '',
    cpu_ns          INTEGER,                        -- the cgroup's CPU counter as last booked
    holdings        TEXT NOT NULL DEFAULT '[]',     -- JSON: [device, share_ppm, exact], …
    first_booked_ns INTEGER NOT NULL DEFAULT 0      -- 0: nothing was
) STRICT;
CREATE INDEX run_end ON run (end_ns);
CREATE INDEX run_start ON run (start_ns);
CREATE INDEX run_uid ON run (uid, start_ns);
CREATE INDEX run_user ON run (user, start_ns);

-- The sums of a run's entries; they stay when slots are rolled up.
CREATE TABLE run_total (
    payee_id        INTEGER NOT NULL REFERENCES payee (id),
    kind            TEXT NOT NULL,
    basis           TEXT NOT NULL,
    energy_uj       INTEGER NOT NULL CHECK (energy_uj >= 0),
    co2e_ug         INTEGER NOT NULL CHECK (co2e_ug >= 0),
    water_onsite_ul INTEGER NOT NULL CHECK (water_onsite_ul >= 0),
    water_grid_ul   INTEGER NOT NULL CHECK (water_grid_ul >= 0),
    held_ms         INTEGER NOT NULL CHECK (held_ms >= 0),
    held_idle_ms    INTEGER NOT NULL CHECK (held_idle_ms >= 0),
    held_idle_uj    INTEGER NOT NULL CHECK (held_idle_uj >= 0),
    PRIMARY KEY (payee_id, kind, basis)
) STRICT, WITHOUT ROWID;

-- Jobs that were left without a series of their own, and the sums of all of them.
CREATE TABLE unlisted_job (
    manager TEXT NOT NULL,
    job_id  TEXT NOT NULL,
    PRIMARY KEY (manager, job_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE unlisted_total (
    kind            TEXT NOT NULL,
    basis           TEXT NOT NULL,
    energy_uj       INTEGER NOT NULL CHECK (energy_uj >= 0),
    co2e_ug         INTEGER NOT NULL CHECK (co2e_ug >= 0),
    water_onsite_ul INTEGER NOT NULL CHECK (water_onsite_ul >= 0),
    water_grid_ul   INTEGER NOT NULL CHECK (water_grid_ul >= 0),
    held_ms         INTEGER NOT NULL CHECK (held_ms >= 0),
    held_idle_ms    INTEGER NOT NULL CHECK (held_idle_ms >= 0),
    held_idle_uj    INTEGER NOT NULL CHECK (held_idle_uj >= 0),
    PRIMARY KEY (kind, basis)
) STRICT, WITHOUT ROWID;

-- Users' sums over all their jobs, as they were known when it was booked.
CREATE TABLE user_total (
    manager         TEXT NOT NULL,
    user            TEXT NOT NULL,
    account         TEXT NOT NULL,
    energy_uj       INTEGER NOT NULL CHECK (energy_uj >= 0),
    co2e_ug         INTEGER NOT NULL CHECK (co2e_ug >= 0),
    water_onsite_ul INTEGER NOT NULL CHECK (water_onsite_ul >= 0),
    water_grid_ul   INTEGER NOT NULL CHECK (water_grid_ul >= 0),
    PRIMARY KEY (manager, user, account)
) STRICT, WITHOUT ROWID;
