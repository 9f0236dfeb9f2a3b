-- Schema version 3: questions about jobs stay quick among a million runs. Indexes only: a program
-- that knows version 2 only may go on writing.

-- Who held GPUs, for how long, and how much of it for nothing, of any span of time: entries of
-- devices that nobody holds (most of them) are not in it.
CREATE INDEX entry_held ON entry
    (slot_s, payee_id, price_id, held_ms, held_idle_ms, held_idle_uj, energy_uj) WHERE held_ms > 0;
CREATE INDEX entry_hour_held ON entry_hour
    (hour_s, payee_id, price_id, held_ms, held_idle_ms, held_idle_uj, energy_uj) WHERE held_ms > 0;

-- With its end, so that a run outside the span that is asked for is passed over within the index.
DROP INDEX run_start;
DROP INDEX run_uid;
DROP INDEX run_user;
CREATE INDEX run_start ON run (start_ns, end_ns);
CREATE INDEX run_uid ON run (uid, start_ns, end_ns);
CREATE INDEX run_user ON run (user, start_ns, end_ns);
CREATE INDEX run_account ON run
    (iif(json_valid(labels), json_extract(labels, '$.account'), NULL), start_ns, end_ns);
