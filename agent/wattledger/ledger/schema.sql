-- The books, schema version 1. Applied by migrations.py in one transaction; a fresh file takes
-- this and then every later migration, so that there is one way to each version.
--
-- Quantities are exact integers: µJ, µg, µL, ms, ns. STRICT refuses the REAL that SQLite would
-- otherwise make of an integer overflow.

-- One row: which books these are and how far they go.
CREATE TABLE meta (
    id             INTEGER PRIMARY KEY CHECK (id = 1),
    epoch          TEXT NOT NULL,               -- another one: counters began again at 0
    epoch_start_ns INTEGER NOT NULL,            -- wall clock
    books_ns       INTEGER NOT NULL DEFAULT 0,  -- wall clock up to which the books are complete
    commits        INTEGER NOT NULL DEFAULT 0 CHECK (commits >= 0),
    clean          INTEGER NOT NULL DEFAULT 0 CHECK (clean IN (0, 1)),  -- closed in good order
    writable_since INTEGER NOT NULL DEFAULT 1   -- the oldest schema version whose program may write
) STRICT;

-- A device, what is known of it besides its energy, and its last counter reading: the checkpoint
-- from which the next difference is taken, written in the transaction that books the last one.
CREATE TABLE device (
    id               INTEGER PRIMARY KEY,
    name             TEXT NOT NULL UNIQUE,
    kind             TEXT NOT NULL,
    meter            TEXT NOT NULL,
    hardware_index   TEXT NOT NULL,
    model            TEXT NOT NULL,
    pci              TEXT NOT NULL,
    present          INTEGER NOT NULL CHECK (present IN (0, 1)),
    unobserved_ms    INTEGER NOT NULL CHECK (unobserved_ms >= 0),
    resets           INTEGER NOT NULL CHECK (resets >= 0),
    raw_uj           INTEGER CHECK (raw_uj >= 0),  -- NULL: no counter was read last
    range_uj         INTEGER CHECK (range_uj > 0),
    max_power_uw     INTEGER,
    tick_ns          INTEGER,
    boot_id          TEXT,
    driver_load      TEXT,
    at_monotonic_ns  INTEGER,
    at_boottime_ns   INTEGER,
    at_wall_ns       INTEGER,
    CHECK ((raw_uj IS NULL) = (at_wall_ns IS NULL))
) STRICT;

-- For whom. A job's run is (manager, job id, start): ids are used again.
CREATE TABLE payee (
    id       INTEGER PRIMARY KEY,
    kind     TEXT NOT NULL,
    manager  TEXT NOT NULL,
    job_id   TEXT NOT NULL,
    start_ns INTEGER NOT NULL,
    UNIQUE (kind, manager, job_id, start_ns)
) STRICT;

-- Everything that turns µJ into µg and µL, with its provenance.
CREATE TABLE price (
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
    UNIQUE (intensity_ug_per_kwh, zone, source, basis, estimated, level, signal_from_ns,
            signal_to_ns, pue_ppm, wue_ul_per_kwh, ewif_ul_per_kwh)
) STRICT;

-- The books at their grain of 5 minutes: energy is cumulative within the entry, CO2e and water
-- are the floor of that energy at the entry's price.
CREATE TABLE entry (
    slot_s          INTEGER NOT NULL CHECK (slot_s % 300 = 0),
    device_id       INTEGER NOT NULL REFERENCES device (id),
    payee_id        INTEGER NOT NULL REFERENCES payee (id),
    quality         TEXT NOT NULL,
    price_id        INTEGER NOT NULL REFERENCES price (id),
    energy_uj       INTEGER NOT NULL CHECK (energy_uj >= 0),
    co2e_ug         INTEGER NOT NULL CHECK (co2e_ug >= 0),
    water_onsite_ul INTEGER NOT NULL CHECK (water_onsite_ul >= 0),
    water_grid_ul   INTEGER NOT NULL CHECK (water_grid_ul >= 0),
    PRIMARY KEY (slot_s, device_id, payee_id, quality, price_id)
) STRICT, WITHOUT ROWID;

-- Old slots, merged into hours. `slots` floors were summed: that is how far the amounts may lie
-- below the floor of the sum.
CREATE TABLE entry_hour (
    hour_s          INTEGER NOT NULL CHECK (hour_s % 3600 = 0),
    device_id       INTEGER NOT NULL REFERENCES device (id),
    payee_id        INTEGER NOT NULL REFERENCES payee (id),
    quality         TEXT NOT NULL,
    price_id        INTEGER NOT NULL REFERENCES price (id),
    energy_uj       INTEGER NOT NULL CHECK (energy_uj >= 0),
    co2e_ug         INTEGER NOT NULL CHECK (co2e_ug >= 0),
    water_onsite_ul INTEGER NOT NULL CHECK (water_onsite_ul >= 0),
    water_grid_ul   INTEGER NOT NULL CHECK (water_grid_ul >= 0),
    slots           INTEGER NOT NULL CHECK (slots > 0),
    PRIMARY KEY (hour_s, device_id, payee_id, quality, price_id)
) STRICT, WITHOUT ROWID;

-- The sums of all entries since the epoch, from which the exported counters are made. They stay
-- when slots are rolled up.
CREATE TABLE total (
    device_id       INTEGER NOT NULL REFERENCES device (id),
    payee_kind      TEXT NOT NULL,
    quality         TEXT NOT NULL,
    basis           TEXT NOT NULL,
    energy_uj       INTEGER NOT NULL CHECK (energy_uj >= 0),
    co2e_ug         INTEGER NOT NULL CHECK (co2e_ug >= 0),
    water_onsite_ul INTEGER NOT NULL CHECK (water_onsite_ul >= 0),
    water_grid_ul   INTEGER NOT NULL CHECK (water_grid_ul >= 0),
    first_booked_ns INTEGER NOT NULL,
    PRIMARY KEY (device_id, payee_kind, quality, basis)
) STRICT, WITHOUT ROWID;

-- The last good grid signals, in the order of their sources.
CREATE TABLE signal (
    position             INTEGER PRIMARY KEY,
    intensity_ug_per_kwh INTEGER NOT NULL,
    zone                 TEXT NOT NULL,
    source               TEXT NOT NULL,
    basis                TEXT NOT NULL,
    valid_from_ns        INTEGER NOT NULL,
    valid_to_ns          INTEGER NOT NULL,
    estimated            INTEGER NOT NULL CHECK (estimated IN (0, 1)),
    fetched_at_ns        INTEGER NOT NULL,
    cadence_ns           INTEGER NOT NULL
) STRICT;

-- Small state of other rooms, JSON.
CREATE TABLE note (
    name TEXT PRIMARY KEY,
    body TEXT NOT NULL
) STRICT, WITHOUT ROWID;
