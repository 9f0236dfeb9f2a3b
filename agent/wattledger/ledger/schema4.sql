-- Schema version 4: users' sums wait until it is known whose a run is. A program that knows version
-- 3 only may go on writing: it adds to user_total alone, and what waits is counted later.

-- What of a run's totals is not in user_total yet; both together are the runs' sums.
CREATE TABLE user_waiting (
    payee_id        INTEGER PRIMARY KEY REFERENCES payee (id),
    energy_uj       INTEGER NOT NULL CHECK (energy_uj >= 0),
    co2e_ug         INTEGER NOT NULL CHECK (co2e_ug >= 0),
    water_onsite_ul INTEGER NOT NULL CHECK (water_onsite_ul >= 0),
    water_grid_ul   INTEGER NOT NULL CHECK (water_grid_ul >= 0)
) STRICT;
