-- What the cleanup asks for.

-- The file that a file: URL names, so that whoever finds the file finds its event.
ALTER TABLE job_outputs ADD COLUMN "sourceFile" text;
ALTER TABLE job_failures ADD COLUMN "sourceFile" text;
UPDATE job_failures SET "sourceFile" = regexp_replace("imageUrl", '^file:(//[^/]*)?', '', 'i') WHERE "imageUrl" ILIKE 'file:/%';

-- By hash, since a path may be longer than an ordered index takes.
CREATE INDEX ON job_outputs USING hash ("sourceFile") WHERE "sourceFile" IS NOT NULL;
CREATE INDEX ON job_failures USING hash ("sourceFile") WHERE "sourceFile" IS NOT NULL AND "resolvedAt" IS NULL;

-- Only what has a time to go is in it, and only until it is gone: looking for what is due costs what is due.
CREATE INDEX ON job_outputs ("ossBucket", "expiresAt", id) WHERE "deletedAt" IS NULL AND "expiresAt" IS NOT NULL;
CREATE INDEX ON job_outputs ("userId", number); -- to erase what is a user's

-- Where the last run of a task left off.
CREATE TABLE job_cleanup (
    task text PRIMARY KEY,
    note text NOT NULL
);
