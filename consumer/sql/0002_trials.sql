-- Tries of events that came back so often that they may be what ends their workers. Erased when the try is over, whatever
-- became of it: one that is still noted was ended by the end of its worker.

CREATE TABLE job_trials (
    id uuid PRIMARY KEY,
    suspect text NOT NULL, -- a hash of the message
    "begunAt" timestamptz NOT NULL
);

CREATE INDEX ON job_trials (suspect);
