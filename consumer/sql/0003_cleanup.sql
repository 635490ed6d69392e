-- What the cleanup asks for.

-- The file that a file: URL names, so that whoever finds the file finds its event.
ALTER TABLE job_outputs ADD COLUMN "sourceFile" text;
ALTER TABLE job_failures ADD COLUMN "sourceFile" text;

-- The path in one spelling, as consumer/core/source_file.py has it; none if it is no UTF-8.
CREATE FUNCTION image_uploads_source_file(url text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    path text := regexp_replace(url, '^file:(//[^/]*)?', '', 'i');
BEGIN
    path := convert_from((
        SELECT string_agg(
            CASE WHEN piece[1] ~ '^%..' THEN decode(substr(piece[1], 2), 'hex') ELSE convert_to(piece[1], 'UTF8') END,
            ''::bytea ORDER BY position
        ) FROM regexp_matches(path, '%[0-9A-Fa-f]{2}|%|[^%]+', 'g') WITH ORDINALITY AS part (piece, position)
    ), 'UTF8');
    RETURN coalesce(nullif(regexp_replace(regexp_replace(path, '/(\.?/)+', '/', 'g'), '(/\.?)+$', ''), ''), '/');
EXCEPTION WHEN character_not_in_repertoire OR untranslatable_character THEN
    RETURN NULL;
END $$;
UPDATE job_failures SET "sourceFile" = image_uploads_source_file("imageUrl") WHERE "imageUrl" ILIKE 'file:/%';
DROP FUNCTION image_uploads_source_file;

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
