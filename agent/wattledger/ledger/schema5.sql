-- Schema version 5: settlement, restatement, and more of what a price says. What became known later
-- stands beside the books, which do not change. A program that knows version 4 only must not go on
-- writing: it would book energy and not what that costs, and roll up entries without what is known
-- better of them.
UPDATE meta SET writable_since = 5;

-- Made anew, since the price of a kWh and who says what are part of what makes a price another one.
CREATE TABLE new_price (
    id                   INTEGER PRIMARY KEY,
    intensity_ug_per_kwh INTEGER NOT NULL CHECK (intensity_ug_per_kwh >= 0),
    zone                 TEXT NOT NULL,
    source               TEXT NOT NULL,
    basis                TEXT NOT NULL,
    estimated            INTEGER NOT NULL CHECK (estimated IN (0, 1)),
    level                INTEGER NOT NULL,
    signal_from_ns       INTEGER NOT NULL,
    signal_to_ns         INTEGER NOT NULL,
    pue_ppm              INTEGER NOT NULL CHECK (pue_ppm >= 0),
    wue_ul_per_kwh       INTEGER NOT NULL CHECK (wue_ul_per_kwh >= 0),
    ewif_ul_per_kwh      INTEGER NOT NULL CHECK (ewif_ul_per_kwh >= 0),
    pue_source           TEXT NOT NULL DEFAULT '',
    wue_source           TEXT NOT NULL DEFAULT '',
    ewif_source          TEXT NOT NULL DEFAULT '',
    market_ug_per_kwh    INTEGER CHECK (market_ug_per_kwh >= 0),
    cost_u_per_kwh       INTEGER CHECK (cost_u_per_kwh >= 0),
    currency             TEXT NOT NULL DEFAULT ''
) STRICT;
INSERT INTO new_price (id, intensity_ug_per_kwh, zone, source, basis, estimated, level,
                       signal_from_ns, signal_to_ns, pue_ppm, wue_ul_per_kwh, ewif_ul_per_kwh)
SELECT id, intensity_ug_per_kwh, zone, source, basis, estimated, level,
       signal_from_ns, signal_to_ns, pue_ppm, wue_ul_per_kwh, ewif_ul_per_kwh FROM price;
DROP TABLE price;
ALTER TABLE new_price RENAME TO price;
-- Not unique: NULLs are not equal to one another there. The writer looks before it inserts.
CREATE INDEX price_found ON price (signal_from_ns, intensity_ug_per_kwh, source);
ALTER TABLE signal ADD COLUMN ewif_ul_per_kwh INTEGER CHECK (ewif_ul_per_kwh >= 0);

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

-- What somebody says of the site's past since. Never changed, never deleted: of those that name a
-- factor of an hour, the last one holds.
CREATE TABLE restatement (
    id              INTEGER PRIMARY KEY,
    author          TEXT NOT NULL,
    reason          TEXT NOT NULL,
    made_at_ns      INTEGER NOT NULL,
    from_s          INTEGER NOT NULL CHECK (from_s % 3600 = 0),
    to_s            INTEGER NOT NULL CHECK (to_s % 3600 = 0 AND to_s > from_s),
    pue_ppm         INTEGER CHECK (pue_ppm >= 0),                -- NULL: it says nothing of that
    wue_ul_per_kwh  INTEGER CHECK (wue_ul_per_kwh >= 0),
    ewif_ul_per_kwh INTEGER CHECK (ewif_ul_per_kwh >= 0)
) STRICT;

-- An entry's correction: its energy as it was then, the price that was published since (that of the
-- books where none was), the final one, which is that with what was restated; and by how much the
-- floors of that energy at the final price and at that of the books differ (final − booked).
CREATE TABLE settled (
    slot_s                INTEGER NOT NULL CHECK (slot_s % 300 = 0),
    device_id             INTEGER NOT NULL REFERENCES device (id),
    payee_id              INTEGER NOT NULL REFERENCES payee (id),
    quality               TEXT NOT NULL,
    price_id              INTEGER NOT NULL REFERENCES price (id),
    settled_price_id      INTEGER NOT NULL REFERENCES price (id),
    final_price_id        INTEGER NOT NULL REFERENCES price (id),
    energy_uj             INTEGER NOT NULL CHECK (energy_uj >= 0),
    settled_uj            INTEGER NOT NULL CHECK (settled_uj >= 0),   -- of it, what was published
    restated_uj           INTEGER NOT NULL CHECK (restated_uj >= 0),  -- of it, what was restated
    co2e_diff_ug          INTEGER NOT NULL,
    co2e_taken_ug         INTEGER NOT NULL CHECK (co2e_taken_ug >= 0), -- from another basis
    water_grid_diff_ul    INTEGER NOT NULL,
    water_onsite_diff_ul  INTEGER NOT NULL,
    PRIMARY KEY (slot_s, device_id, payee_id, quality, price_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX settled_payee ON settled (payee_id, slot_s);

-- The same of old slots, merged into hours as their entries are.
CREATE TABLE settled_hour (
    hour_s                INTEGER NOT NULL CHECK (hour_s % 3600 = 0),
    device_id             INTEGER NOT NULL REFERENCES device (id),
    payee_id              INTEGER NOT NULL REFERENCES payee (id),
    quality               TEXT NOT NULL,
    price_id              INTEGER NOT NULL REFERENCES price (id),
    settled_price_id      INTEGER NOT NULL REFERENCES price (id),
    final_price_id        INTEGER NOT NULL REFERENCES price (id),
    energy_uj             INTEGER NOT NULL CHECK (energy_uj >= 0),
    settled_uj            INTEGER NOT NULL CHECK (settled_uj >= 0),
    restated_uj           INTEGER NOT NULL CHECK (restated_uj >= 0),
    co2e_diff_ug          INTEGER NOT NULL,
    co2e_taken_ug         INTEGER NOT NULL CHECK (co2e_taken_ug >= 0),
    water_grid_diff_ul    INTEGER NOT NULL,
    water_onsite_diff_ul  INTEGER NOT NULL,
    slots                 INTEGER NOT NULL CHECK (slots > 0),
    PRIMARY KEY (hour_s, device_id, payee_id, quality, price_id, settled_price_id, final_price_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX settled_hour_payee ON settled_hour (payee_id, hour_s);

-- Their sums by what the intensities count, of the node and of each run; they stay when slots are
-- rolled up. Energy whose final basis is another one counts there, and is taken away from that of
-- the books: moved_uj and co2e_diff_ug, which are below 0 there.
CREATE TABLE settled_total (
    basis                TEXT PRIMARY KEY,
    settled_uj           INTEGER NOT NULL CHECK (settled_uj >= 0),
    co2e_diff_ug         INTEGER NOT NULL,
    water_grid_diff_ul   INTEGER NOT NULL,
    water_onsite_diff_ul INTEGER NOT NULL,
    restated_uj          INTEGER NOT NULL CHECK (restated_uj >= 0),
    moved_uj             INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE settled_run (
    payee_id             INTEGER NOT NULL REFERENCES payee (id),
    basis                TEXT NOT NULL,
    settled_uj           INTEGER NOT NULL CHECK (settled_uj >= 0),
    co2e_diff_ug         INTEGER NOT NULL,
    water_grid_diff_ul   INTEGER NOT NULL,
    water_onsite_diff_ul INTEGER NOT NULL,
    restated_uj          INTEGER NOT NULL CHECK (restated_uj >= 0),
    moved_uj             INTEGER NOT NULL,
    PRIMARY KEY (payee_id, basis)
) STRICT, WITHOUT ROWID;

-- What a run cost and emitted besides its amounts: exact products as JSON of decimal strings, which
-- no integer of SQLite's could hold. Those of the node stand in `note`.
CREATE TABLE run_sums (
    payee_id INTEGER PRIMARY KEY REFERENCES payee (id),
    sums     TEXT NOT NULL
) STRICT;
