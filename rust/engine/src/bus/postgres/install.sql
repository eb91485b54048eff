-- Installs the schema of a PostgreSQL event bus, or brings an older one up to date; where it is up to date nothing is done.
-- It needs no superuser: a role that owns the schema, or may create one in this database. What it makes belongs to that role,
-- and several functions run with its rights; so let it be one that has no others.
BEGIN ISOLATION LEVEL READ COMMITTED;
-- What others have put into schemas of this database is not looked at.
SET LOCAL search_path = pg_catalog, pg_temp;
DO $install$ BEGIN
    -- One at a time. What comes next sees what the one before has done.
    PERFORM pg_advisory_xact_lock(hashtextextended('@notify@', 0));
END $install$;
DO $install$
DECLARE
    installed integer := 0;
    current CONSTANT integer := @version@;
    owner name := (SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE oid = to_regnamespace('@schema@'));
BEGIN
    IF current_setting('server_version_num')::integer < 140000 THEN
        RAISE feature_not_supported USING MESSAGE = 'PostgreSQL 14 or newer is needed';
    ELSIF owner <> current_user THEN
        -- Whoever owns a schema decides what is in it.
        RAISE insufficient_privilege USING
            MESSAGE = format('the schema @schema@ belongs to the role %I: only that role installs into it', owner);
    END IF;
    IF to_regclass('@schema@.meta') IS NOT NULL THEN
        -- Locked before any table is: whoever gives positions has it first too.
        SELECT version INTO STRICT installed FROM @schema@.meta FOR UPDATE;
    END IF;
    IF installed > current THEN
        RAISE object_not_in_prerequisite_state USING
            MESSAGE = format('the schema @schema@ has version %s, and this is version %s of its SQL', installed, current),
            HINT = 'Use a newer fraiseql-subs.';
    ELSIF installed = current THEN
        RETURN;
    END IF;
@migrations@
    EXECUTE $schema$
@sql@
    $schema$;
    UPDATE @schema@.meta SET version = current;
END $install$;
COMMIT;
