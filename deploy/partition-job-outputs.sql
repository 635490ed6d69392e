-- For hundreds of millions of outputs: job_outputs in 64 parts, which are vacuumed, indexed and moved one by one.
--
-- By a hash of the event's name, since the pair ("eventSource", "eventId") must be unique in all of the table, and that is what
-- keeps an event from being stored twice; parts by time could not promise it. Our id and key are derived from the pair.
--
-- Run it with no worker running: psql -v ON_ERROR_STOP=1 -f partition-job-outputs.sql "$DATABASE_URL". It copies every row,
-- so it takes its time and as much room again, and changes all or nothing. Rights on the table are to be granted anew:
-- `image-uploads check` prints how.

BEGIN;

ALTER TABLE job_outputs RENAME TO job_outputs_whole;

CREATE TABLE job_outputs (LIKE job_outputs_whole INCLUDING DEFAULTS INCLUDING COMMENTS)
    PARTITION BY HASH ("eventSource", "eventId");

DO $$
BEGIN
    FOR part IN 0..63 LOOP
        EXECUTE format(
            'CREATE TABLE job_outputs_%s PARTITION OF job_outputs FOR VALUES WITH (MODULUS 64, REMAINDER %s)', part, part);
        EXECUTE format(
            'ALTER TABLE job_outputs_%s SET (autovacuum_vacuum_scale_factor = 0.02, '
            'autovacuum_vacuum_insert_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02)', part);
    END LOOP;
END $$;

INSERT INTO job_outputs SELECT * FROM job_outputs_whole;

DROP TABLE job_outputs_whole; -- and with it the names of its indexes

ALTER TABLE job_outputs
    ADD UNIQUE ("eventSource", "eventId"),
    ADD PRIMARY KEY (id, "eventSource", "eventId"),
    ADD UNIQUE ("ossKey", "eventSource", "eventId");
CREATE INDEX ON job_outputs (number);
CREATE INDEX ON job_outputs ("createdAt");
CREATE INDEX ON job_outputs ("jobId");
CREATE INDEX ON job_outputs ("userId", number);
CREATE INDEX ON job_outputs USING hash ("sourceFile") WHERE "sourceFile" IS NOT NULL;
CREATE INDEX ON job_outputs ("ossBucket", "expiresAt", id) WHERE "deletedAt" IS NULL AND "expiresAt" IS NOT NULL;

COMMIT;

ANALYZE job_outputs;
