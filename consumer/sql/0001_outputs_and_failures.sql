-- The record of what became of every event. Names are those that the older backend's users query by.

-- One number line for both tables. A number is drawn under an advisory lock that is held until commit, so that number
-- order is commit order and a reader who follows it misses nothing.
CREATE SEQUENCE job_record_number;

CREATE TABLE job_outputs (
    id uuid PRIMARY KEY,
    number bigint NOT NULL UNIQUE DEFAULT nextval('job_record_number'),
    "jobId" text NOT NULL,
    "userId" text NOT NULL,
    "eventSource" text NOT NULL,
    "eventId" text NOT NULL,
    "eventFingerprint" text NOT NULL, -- tells the event from another one of the same source and id
    "ossBucket" text NOT NULL,
    "ossKey" text COLLATE "C" NOT NULL UNIQUE, -- OSS lists keys by bytes, and so do we
    url text NOT NULL,
    "contentType" text NOT NULL,
    "sizeBytes" bigint NOT NULL,
    width integer NOT NULL,
    height integer NOT NULL,
    crc64 text NOT NULL, -- unsigned 64 bits do not fit a bigint
    prompt text,
    metadata jsonb,
    "createdAt" timestamptz NOT NULL,
    "expiresAt" timestamptz,
    "deletedAt" timestamptz,
    UNIQUE ("eventSource", "eventId")
);

CREATE INDEX ON job_outputs ("createdAt");
CREATE INDEX ON job_outputs ("jobId");

CREATE TABLE job_failures (
    id uuid PRIMARY KEY, -- of the failed event
    number bigint NOT NULL UNIQUE DEFAULT nextval('job_record_number'),
    "eventSource" text,
    "eventId" text,
    "eventFingerprint" text NOT NULL,
    "jobId" text,
    "userId" text,
    "imageUrl" text, -- without its query
    reason text NOT NULL,
    detail text NOT NULL,
    attempts integer NOT NULL,
    replays integer NOT NULL,
    "failedAt" timestamptz NOT NULL,
    "resolvedAt" timestamptz
);

CREATE INDEX ON job_failures ("eventSource", "eventId");
CREATE INDEX ON job_failures ("jobId");
