-- Schema version 5: settlement. What a source published later stands beside the books, which do not
-- change. New tables only: a program that knows version 4 only may go on writing; it settles
-- nothing, and what it rolls up keeps its settlement.

-- One word of a source on a span of time: which version of its history was used, and when.
CREATE TABLE history (
    id            INTEGER PRIMARY KEY,
    source        TEXT NOT NULL,
    zone          TEXT NOT NULL,
    basis         TEXT NOT NULL,
    from_ns       INTEGER NOT NULL,           -- the span that was asked for
    to_ns         INTEGER NOT NULL,
    signals       INTEGER NOT NULL,           -- how many it gave for that
    digest        TEXT NOT NULL,              -- SHA-256 of what it gave
    fetched_at_ns INTEGER NOT NULL,
    UNIQUE (source, zone, basis, from_ns, to_ns, digest, fetched_at_ns)
) STRICT;

-- By which history a slot was settled, each time that its price changed. Never deleted.
CREATE TABLE settled_slot (
    slot_s           INTEGER NOT NULL,
    price_id         INTEGER NOT NULL REFERENCES price (id),    -- that of the books
    history_id       INTEGER NOT NULL REFERENCES history (id),
    settled_price_id INTEGER NOT NULL REFERENCES price (id),
    PRIMARY KEY (slot_s, price_id, history_id)
) STRICT, WITHOUT ROWID;

-- An entry's settlement: its energy as it was then, and by how much the floors of that energy at
-- the two prices differ (settled − booked).
CREATE TABLE settled (
    slot_s             INTEGER NOT NULL CHECK (slot_s % 300 = 0),
    device_id          INTEGER NOT NULL REFERENCES device (id),
    payee_id           INTEGER NOT NULL REFERENCES payee (id),
    quality            TEXT NOT NULL,
    price_id           INTEGER NOT NULL REFERENCES price (id),
    settled_price_id   INTEGER NOT NULL REFERENCES price (id),
    energy_uj          INTEGER NOT NULL CHECK (energy_uj >= 0),
    co2e_diff_ug       INTEGER NOT NULL,
    water_grid_diff_ul INTEGER NOT NULL,
    PRIMARY KEY (slot_s, device_id, payee_id, quality, price_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX settled_payee ON settled (payee_id, slot_s);

-- The same of old slots, merged into hours as their entries are.
CREATE TABLE settled_hour (
    hour_s             INTEGER NOT NULL CHECK (hour_s % 3600 = 0),
    device_id          INTEGER NOT NULL REFERENCES device (id),
    payee_id           INTEGER NOT NULL REFERENCES payee (id),
    quality            TEXT NOT NULL,
    price_id           INTEGER NOT NULL REFERENCES price (id),
    settled_price_id   INTEGER NOT NULL REFERENCES price (id),
    energy_uj          INTEGER NOT NULL CHECK (energy_uj >= 0),
    co2e_diff_ug       INTEGER NOT NULL,
    water_grid_diff_ul INTEGER NOT NULL,
    slots              INTEGER NOT NULL CHECK (slots > 0),
    PRIMARY KEY (hour_s, device_id, payee_id, quality, price_id, settled_price_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX settled_hour_payee ON settled_hour (payee_id, hour_s);

-- Their sums: of the node and of each run; they stay when slots are rolled up.
CREATE TABLE settled_total (
    basis              TEXT PRIMARY KEY,
    energy_uj          INTEGER NOT NULL CHECK (energy_uj >= 0),
    co2e_diff_ug       INTEGER NOT NULL,
    water_grid_diff_ul INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE settled_run (
    payee_id           INTEGER PRIMARY KEY REFERENCES payee (id),
    energy_uj          INTEGER NOT NULL CHECK (energy_uj >= 0),
    co2e_diff_ug       INTEGER NOT NULL,
    water_grid_diff_ul INTEGER NOT NULL
) STRICT;
