-- Tries of events that came back so often that they may be what ends their workers. Erased when a try is over, whatever
-- became of it: a try that is still counted was ended by the end of its worker.

CREATE TABLE job_trials (
    suspect text PRIMARY KEY, -- a hash of the message
    begun integer NOT NULL,
    "lastBegunAt" timestamptz NOT NULL
);
