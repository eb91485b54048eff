-- Tracked tables: each row that is inserted, updated or deleted becomes an event, whoever writes it.
--
-- One trigger a table, for each row and all three operations. Statements with transition tables would be cheaper in bulk, but do
-- not say which old row became which new one when a key changes, do not see rows that are written to a partition by its own name
-- or applied by replication, and come after what the application's own row triggers do, so that changes of one row get out of order.

-- What the triggers call. Arguments: channel; the tenant's column, empty where there is none; the columns to send, as an array's
-- text, empty for all; what becomes of a row too large, 'raise' or 'key-only'. Triggers made by older versions call this too.
-- It runs with the rights of this schema's owner: writers need none here. All that the text of a value depends on is set.
CREATE OR REPLACE FUNCTION @schema@.row_changed() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC' SET datestyle = 'ISO' SET intervalstyle = 'postgres' SET bytea_output = 'hex' SET extra_float_digits = 1
AS $body$
DECLARE
    tenant_column CONSTANT text := TG_ARGV[1];
    whole CONSTANT jsonb := to_jsonb(CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END);
    former CONSTANT jsonb := CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) END;
    data jsonb := whole;
    previous jsonb := former;
    sent text[] := nullif(TG_ARGV[2], '');
    keys text[];
    name text;
    bytes integer;
    most integer;
BEGIN
    -- An event without its tenant would be somebody else's.
    IF tenant_column <> '' AND NOT whole ? tenant_column THEN
        RAISE undefined_column USING
            MESSAGE = format('tracked table %s has no column "%s" any more, which its events'' tenant comes from',
                TG_RELID::regclass, tenant_column),
            HINT = 'Track the table anew, or untrack it.';
    END IF;
    SELECT max_bytes INTO STRICT most FROM @schema@.meta;
    LOOP
        IF sent IS NOT NULL THEN
            data := '{}';
            previous := CASE WHEN former IS NOT NULL THEN '{}'::jsonb END;
            FOREACH name IN ARRAY sent LOOP
                IF whole ? name THEN
                    data := data || jsonb_build_object(name, whole -> name);
                    previous := previous || jsonb_build_object(name, former -> name);
                END IF;
            END LOOP;
        END IF;
        bytes := greatest(octet_length(data::text), octet_length(previous::text));
        EXIT WHEN bytes <= most;
        keys := CASE TG_ARGV[3] WHEN 'key-only' THEN @schema@.key_columns(TG_RELID) END;
        IF keys IS NULL OR keys = sent THEN
            RAISE program_limit_exceeded USING
                MESSAGE = format('a row of tracked table %s has %s bytes as JSON; at most %s are taken',
                    TG_RELID::regclass, bytes, most),
                HINT = 'Track the table with fewer columns, or with --oversize key-only.';
        END IF;
        sent := keys;
    END LOOP;
    -- Not by publish(), which would measure the row anew.
    INSERT INTO @schema@.event (channel, event_type, tenant_id, data, previous)
        VALUES (TG_ARGV[0], lower(TG_OP), whole ->> tenant_column, data::json, previous::json);
    PERFORM pg_notify('@notify@', pg_current_xact_id()::text);
    RETURN NULL;
END $body$;

-- The columns of a table's primary key; NULL where it has none.
CREATE OR REPLACE FUNCTION @schema@.key_columns(tracked regclass) RETURNS text[] LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $body$
    SELECT array_agg(attname::text) FROM pg_index
    JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY ((indkey::int2[])[0:indnkeyatts - 1])
    WHERE indrelid = tracked AND indisprimary
$body$;

-- Tracks a table, or changes how it is tracked; returns the channel. It has the rights of its caller, who needs TRIGGER on the table
-- and EXECUTE on `row_changed`. Columns are written as they are stored.
CREATE OR REPLACE FUNCTION @schema@.track(
    tracked regclass,
    channel text DEFAULT NULL,
    tenant_column text DEFAULT NULL,
    columns text[] DEFAULT NULL,
    oversize text DEFAULT 'raise'
) RETURNS text LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $body$
DECLARE
    relation pg_class;
    wanted text;
BEGIN
    SELECT * INTO relation FROM pg_class WHERE oid = tracked;
    IF relation.relkind NOT IN ('r', 'p') THEN
        RAISE '% is not a table', tracked USING ERRCODE = 'wrong_object_type';
    ELSIF relation.relnamespace = '@schema@'::regnamespace THEN
        RAISE '% belongs to the bus itself', tracked USING ERRCODE = 'wrong_object_type';
    ELSIF EXISTS (SELECT FROM pg_trigger WHERE tgrelid = tracked AND tgfoid = '@schema@.row_changed()'::regprocedure AND tgparentid <> 0) THEN
        RAISE '% is a partition of a table that is tracked', tracked USING ERRCODE = 'wrong_object_type';
    ELSIF coalesce(oversize NOT IN ('raise', 'key-only'), true) THEN
        RAISE 'oversize: expected raise or key-only, got %', oversize USING ERRCODE = 'invalid_parameter_value';
    ELSIF columns = '{}' THEN
        RAISE 'columns: expected one at least' USING ERRCODE = 'invalid_parameter_value';
    ELSIF oversize = 'key-only' AND @schema@.key_columns(tracked) IS NULL THEN
        RAISE '% has no primary key, which oversize key-only sends', tracked USING ERRCODE = 'undefined_object';
    END IF;
    FOREACH wanted IN ARRAY array_remove(columns || tenant_column, NULL) LOOP
        IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = tracked AND attname = wanted AND attnum > 0 AND NOT attisdropped) THEN
            RAISE '% has no column "%"', tracked, wanted USING ERRCODE = 'undefined_column';
        END IF;
    END LOOP;
    SELECT attname INTO wanted FROM pg_attribute
    WHERE attrelid = tracked AND attgenerated = 'v' AND (columns IS NULL OR attname = ANY (columns || tenant_column));
    IF FOUND THEN
        RAISE 'column "%" of % is virtual, and triggers do not see it: name the others as columns', wanted, tracked
            USING ERRCODE = 'wrong_object_type';
    END IF;
    channel := coalesce(channel, relation.relname);
    IF channel = '' OR channel COLLATE "C" ~ '[\x01-\x1f\x7f-\x9f]' OR octet_length(channel) > 1024 THEN
        RAISE 'channel: expected a text of 1 to 1024 bytes without control characters' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    -- Row triggers fire in the order of their names: before those of the application, whose own changes are events too.
    EXECUTE format(
        'CREATE OR REPLACE TRIGGER %I AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW EXECUTE FUNCTION @schema@.row_changed(%L, %L, %L, %L)',
        '!@notify@', tracked, channel, coalesce(tenant_column, ''), coalesce(columns::text, ''), oversize);
    RETURN channel;
END $body$;

-- Ends that; returns whether the table was tracked.
CREATE OR REPLACE FUNCTION @schema@.untrack(tracked regclass) RETURNS boolean LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $body$
DECLARE
    name text;
    root oid;
BEGIN
    SELECT tgname, tgparentid INTO name, root FROM pg_trigger WHERE tgrelid = tracked AND tgfoid = '@schema@.row_changed()'::regprocedure;
    IF NOT FOUND THEN
        RETURN false;
    ELSIF root <> 0 THEN
        RAISE '% is tracked as a partition: untrack the table that it is of', tracked USING ERRCODE = 'wrong_object_type';
    END IF;
    EXECUTE format('DROP TRIGGER %I ON %s', name, tracked);
    RETURN true;
END $body$;

REVOKE ALL ON FUNCTION @schema@.row_changed(), @schema@.key_columns(regclass), @schema@.track(regclass, text, text, text[], text), @schema@.untrack(regclass) FROM PUBLIC;
