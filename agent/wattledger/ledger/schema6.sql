-- Schema version 6: ended runs that leave the node as records of their own (see `exporters` in the
-- settings). A program that knows version 5 only may go on writing: runs that end meanwhile are
-- booked as ever, but do not come to wait here.

-- An ended run that an exporter has not delivered. Its row goes with the acknowledgement. One that
-- its receiver refused stays, and is tried again another day.
CREATE TABLE run_export (
    exporter   TEXT NOT NULL,
    payee_id   INTEGER NOT NULL REFERENCES payee (id),
    queued     INTEGER NOT NULL,                        -- meta.commits of the commit it came with
    refused_ns INTEGER NOT NULL DEFAULT 0 CHECK (refused_ns >= 0),  -- wall clock; 0: it was not
    PRIMARY KEY (exporter, payee_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX run_export_order ON run_export (exporter, refused_ns, payee_id);
