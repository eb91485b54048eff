-- The PostgreSQL event bus: an outbox that publishers write in their own transactions, and positions that are given
-- afterwards.
--
-- Whoever runs this replaces two placeholders: @schema@ by the quoted name of a schema, @notify@ by the name of its
-- NOTIFY channel. It runs again on an installed schema without harm, in one transaction, by a role that owns the schema
-- or may create it.
--
-- Roles. Nothing here is granted to PUBLIC.
--   A publisher in SQL needs USAGE on the schema and EXECUTE on publish(), and on channel_name() where it calls that; one
--   that publishes by `publish_event` also EXECUTE on publish_sent() and SELECT on meta.
--   A reader (a worker with subscriptions) needs what a publisher needs, SELECT on all tables, and EXECUTE on advance() and
--   prune().
-- The functions that write run with the rights of the schema's owner.

DO $do$ BEGIN
    IF to_regnamespace('@schema@') IS NULL THEN
        CREATE SCHEMA @schema@;
    END IF;
END $do$;

-- What was published. `txid` says which transaction did, `seq` was drawn at the insert: what came of an event that its
-- cause's transaction had committed has a greater one. The default of `id` is for whoever inserts rows by SQL;
-- `version` is that of the row's meaning.
CREATE TABLE IF NOT EXISTS @schema@.event (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    txid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    version smallint NOT NULL DEFAULT 1,
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    published_at timestamptz NOT NULL DEFAULT statement_timestamp(),
    channel text NOT NULL,
    event_type text NOT NULL,
    tenant_id text,
    all_tenants boolean NOT NULL DEFAULT false,
    source text,
    data json NOT NULL,
    previous json,
    size integer NOT NULL
        GENERATED ALWAYS AS (octet_length(data::text) + coalesce(octet_length(previous::text), 0)) STORED
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX IF NOT EXISTS event_txid ON @schema@.event (txid);

-- Where events stand in the order of the bus. Apart from them, and slim: it is written once and read often.
CREATE TABLE IF NOT EXISTS @schema@.position (
    position bigint PRIMARY KEY,
    seq bigint NOT NULL,
    channel text NOT NULL,
    size integer NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX IF NOT EXISTS position_channel ON @schema@.position (channel, position);

-- One row for each time that positions were given: `last` is the greatest of them, `snapshot` says which transactions
-- are done with. Rows are added, never changed: a row that is updated that often would leave a trail as long as the
-- oldest open transaction. While a great many events are positioned part by part, those that `target` sees and
-- `snapshot` does not are done up to `through`.
CREATE TABLE IF NOT EXISTS @schema@.tick (
    tick bigint PRIMARY KEY,
    made_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    last bigint NOT NULL,
    snapshot pg_snapshot NOT NULL,
    target pg_snapshot,
    through bigint
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);

-- What pruning knows of a channel: how many positions it counted there and has not removed, the greatest of both.
CREATE TABLE IF NOT EXISTS @schema@.channel (
    channel text PRIMARY KEY,
    last bigint NOT NULL,
    kept bigint NOT NULL,
    trimmed bigint NOT NULL
) WITH (fillfactor = 50);

-- One row, whose lock lets one prune at a time. Positions up to `counted` are counted; a channel that has no row was
-- not trimmed beyond `floor`.
CREATE TABLE IF NOT EXISTS @schema@.pruning (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    counted bigint NOT NULL,
    floor bigint NOT NULL
);

-- One row, whose lock lets one give positions at a time.
CREATE TABLE IF NOT EXISTS @schema@.meta (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    version integer NOT NULL,
    epoch bigint NOT NULL,
    incarnation text NOT NULL,
    max_bytes integer NOT NULL DEFAULT 1048576 CHECK (max_bytes > 0)
);

-- What a snapshot's numbers mean something in: this server's life since a backup or a promotion, this database, this
-- table.
CREATE OR REPLACE FUNCTION @schema@.incarnation() RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT concat_ws(' ',
        (SELECT system_identifier FROM pg_control_system()),
        left(pg_walfile_name(pg_current_wal_lsn()), 8),
        (SELECT oid FROM pg_database WHERE datname = current_database()),
        '@schema@.event'::regclass::oid)
$body$;

CREATE OR REPLACE FUNCTION @schema@.random() RETURNS bigint
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT ('x' || right(replace(gen_random_uuid()::text, '-', ''), 16))::bit(64)::bigint
$body$;

CREATE OR REPLACE FUNCTION @schema@.clock() RETURNS bigint
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
$body$;

-- The snapshot as one that sees nothing of this transaction.
CREATE OR REPLACE FUNCTION @schema@.still_open(snapshot pg_snapshot, txid xid8) RETURNS pg_snapshot
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT CASE WHEN txid >= pg_snapshot_xmax(snapshot) THEN snapshot ELSE
        (SELECT concat_ws(':', (array_agg(x ORDER BY x))[1], pg_snapshot_xmax(snapshot), string_agg(x::text, ',' ORDER BY x))
            FROM (SELECT txid AS x UNION SELECT pg_snapshot_xip(snapshot)) AS open)::pg_snapshot
    END
$body$;

INSERT INTO @schema@.meta (version, epoch, incarnation) VALUES (1, @schema@.random(), @schema@.incarnation())
    ON CONFLICT (single) DO NOTHING;
INSERT INTO @schema@.tick (tick, last, snapshot)
    SELECT 1, @schema@.clock(), pg_current_snapshot() WHERE NOT EXISTS (SELECT FROM @schema@.tick);
INSERT INTO @schema@.pruning (counted, floor) VALUES (0, 0) ON CONFLICT (single) DO NOTHING;

-- The name of a channel: its template with the arguments in place of `{argument}`. It is the name that `channel_name` gives in
-- Python and that a subscription with these arguments listens to. Arguments without a placeholder are ignored, so that a
-- row may be given: to_jsonb(NEW).
CREATE OR REPLACE FUNCTION @schema@.channel_name(template text, arguments jsonb) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    segments text[] := string_to_array(template COLLATE "C", ':');
    segment text COLLATE "C";
    argument text COLLATE "C";
    written text COLLATE "C";
    name text COLLATE "C";
BEGIN
    IF jsonb_typeof(arguments) <> 'object' THEN
        RAISE invalid_parameter_value USING MESSAGE = 'arguments: expected a JSON object';
    END IF;
    FOR place IN 1 .. cardinality(segments) LOOP
        segment := segments[place];
        CONTINUE WHEN segment !~ '[{}]';
        argument := substring(segment FROM '^\{([^{}]+)\}$');
        IF argument IS NULL THEN
            RAISE invalid_parameter_value USING
                MESSAGE = format('template: "%s" is neither a text without braces nor one placeholder', segment),
                HINT = 'A placeholder stands alone between ":" or the ends, as in "orders:{order_id}".';
        END IF;
        written := arguments ->> argument;
        -- Nothing else has one form only: 1.50 and 1.5 are equal.
        IF coalesce(
            CASE jsonb_typeof(arguments -> argument) WHEN 'number' THEN written !~ '^-?[0-9]+$' ELSE
                jsonb_typeof(arguments -> argument) NOT IN ('string', 'boolean') END, true)
        THEN
            RAISE invalid_parameter_value USING
                MESSAGE = format('arguments: expected a string, an integer or a boolean as "%s", got %s', argument,
                    coalesce(jsonb_typeof(arguments -> argument), 'nothing'));
        END IF;
        segments[place] := replace(replace(written, '%', '%25'), ':', '%3A');
    END LOOP;
    name := array_to_string(segments, ':');
    IF name = '' OR name ~ '[\x01-\x1f\x7f-\x9f]' OR octet_length(name) > 1024 THEN
        RAISE invalid_parameter_value USING MESSAGE =
            'the name of a channel: expected a text of 1 to 1024 bytes without control characters';
    END IF;
    RETURN name;
END $body$;

-- Publishes an event in the transaction of whoever calls it. The NOTIFY names the transaction, so one has one, however
-- much it publishes.
CREATE OR REPLACE FUNCTION @schema@.publish(
    channel text,
    event_type text,
    data jsonb,
    tenant_id text DEFAULT NULL,
    source text DEFAULT NULL,
    previous jsonb DEFAULT NULL
) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    most integer;
    event_id uuid := gen_random_uuid();
    sent text := data;
    before text := previous;
BEGIN
    SELECT max_bytes INTO STRICT most FROM @schema@.meta;
    IF channel IS NULL OR channel = '' OR channel COLLATE "C" ~ '[\x01-\x1f\x7f-\x9f]' OR octet_length(channel) > 1024 THEN
        RAISE invalid_parameter_value USING MESSAGE =
            'channel: expected a text of 1 to 1024 bytes without control characters';
    ELSIF event_type IS NULL OR event_type = '' THEN
        RAISE invalid_parameter_value USING MESSAGE = 'event_type: expected a text that is not empty';
    ELSIF data IS NULL OR jsonb_typeof(data) <> 'object' THEN
        RAISE invalid_parameter_value USING MESSAGE = 'data: expected a JSON object';
    ELSIF jsonb_typeof(previous) <> 'object' THEN
        RAISE invalid_parameter_value USING MESSAGE = 'previous: expected a JSON object';
    ELSIF octet_length(sent) > most THEN
        RAISE program_limit_exceeded USING MESSAGE =
            format('data has %s bytes as JSON; at most %s are taken', octet_length(sent), most);
    ELSIF octet_length(before) > most THEN
        RAISE program_limit_exceeded USING MESSAGE =
            format('previous has %s bytes as JSON; at most %s are taken', octet_length(before), most);
    END IF;
    INSERT INTO @schema@.event (id, channel, event_type, tenant_id, source, data, previous)
        VALUES (event_id, channel, event_type, tenant_id, source, sent::json, before::json);
    PERFORM pg_notify('@notify@', pg_current_xact_id()::text);
    RETURN replace(event_id::text, '-', '');
END $body$;

-- Publishes what `publish_event` and `publish_events` have checked: all or none, in this order. The arrays are of one
-- length.
CREATE OR REPLACE FUNCTION @schema@.publish_sent(
    ids uuid[],
    channels text[],
    event_types text[],
    tenant_ids text[],
    all_tenants boolean[],
    sources text[],
    data text[],
    previous text[]
) RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
    INSERT INTO @schema@.event (id, channel, event_type, tenant_id, all_tenants, source, data, previous)
        SELECT id, channel, event_type, tenant_id, everyone, source, sent::json, before::json
        FROM unnest(ids, channels, event_types, tenant_ids, all_tenants, sources, data, previous) WITH ORDINALITY
            AS given (id, channel, event_type, tenant_id, everyone, source, sent, before, place)
        ORDER BY place;
    SELECT pg_notify('@notify@', pg_current_xact_id()::text);
$body$;

-- Gives positions to the events that are visible now and were not when positions were last given, `most` at once.
-- Returns the epoch, the last position, a snapshot whose events all have one, how many it gave one here and whether
-- there are more; no row: another is at it.
--
-- The snapshots of the ticks follow each other: each was taken under the lock, after the tick before was committed. One
-- of them is the first that sees an event; so each event is positioned once, and none is passed by, however late it
-- commits. A long transaction is not waited for: its events are found by its number when it is done. What comes of an
-- event was inserted when that event was visible: it is seen no earlier, and its `seq` is greater.
--
-- After a crash the numbers of transactions are given again, yet none that a tick holds to be done: whatever commits or
-- aborts writes so into the log before any snapshot shows it as done, so before the commit of the tick that keeps that
-- snapshot. That commit is flushed, and recovery begins to count beyond every number in the log. A transaction that was
-- open or not begun is not held to be done, so whoever gets its number again is found. The log of a promoted standby is
-- a beginning of its primary's, and the same holds there.
--
-- Where the incarnation is another (a restored dump, a promoted standby, pg_upgrade, this table made anew), an epoch
-- begins, and what has no position is found by looking for it. Numbers from elsewhere might be those of transactions to
-- come: they are changed.
CREATE OR REPLACE FUNCTION @schema@.advance(
    most integer DEFAULT 10000,
    OUT epoch bigint, OUT last bigint, OUT snapshot text, OUT positioned bigint, OUT more boolean
) RETURNS SETOF record
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $body$
DECLARE
    own xid8;
    start bigint;
    present text := @schema@.incarnation();
    state @schema@.meta;
    done @schema@.tick;
    next @schema@.tick;
    is_due boolean;
    channels text;
    payload text;
BEGIN
    -- Other levels have one snapshot for all statements: it may be older than the lock.
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE invalid_transaction_state USING MESSAGE = 'advance() needs a READ COMMITTED transaction';
    END IF;

    -- As a rule there is nothing to do, and this leaves no trace.
    SELECT * INTO STRICT state FROM @schema@.meta;
    SELECT t.* INTO STRICT done FROM @schema@.tick AS t ORDER BY t.tick DESC LIMIT 1;
    IF state.incarnation = present AND done.target IS NULL THEN
        SELECT pg_current_snapshot()::text,
            EXISTS (SELECT FROM @schema@.event AS e WHERE e.txid >= pg_snapshot_xmax(done.snapshot))
            OR EXISTS (SELECT FROM @schema@.event AS e WHERE e.txid = ANY (ARRAY(
                SELECT x FROM pg_snapshot_xip(done.snapshot) AS x
                WHERE pg_visible_in_snapshot(x, pg_current_snapshot()))))
            -- From time to time, as the search passes over all rows of younger transactions that are still open.
            OR (done.made_at < clock_timestamp() - interval '10 seconds'
                AND pg_snapshot_xmax(pg_current_snapshot()) > pg_snapshot_xmax(done.snapshot))
            INTO snapshot, is_due;
        IF NOT is_due THEN
            epoch := state.epoch;
            last := done.last;
            positioned := 0;
            more := false;
            RETURN NEXT;
            RETURN;
        END IF;
    END IF;

    SELECT * INTO state FROM @schema@.meta FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    SELECT t.* INTO STRICT done FROM @schema@.tick AS t ORDER BY t.tick DESC LIMIT 1;
    own := pg_current_xact_id();
    start := greatest(done.last, @schema@.clock() - 1);
    -- It is to be as durable as what is built on it.
    IF current_setting('synchronous_commit') = 'off' THEN
        PERFORM set_config('synchronous_commit', 'local', true);
    END IF;

    IF state.incarnation <> present THEN
        state.epoch := @schema@.random();
        UPDATE @schema@.meta SET epoch = state.epoch, incarnation = present;
        -- 3 and 4 are no user's transactions. What has no position goes under 4, which is then searched as one that was
        -- open.
        WITH foreign_events AS (
            UPDATE @schema@.event AS e
            SET txid = CASE WHEN EXISTS (SELECT FROM @schema@.position AS p WHERE p.seq = e.seq)
                THEN '3' ELSE '4' END::xid8
            WHERE e.txid <> own AND (e.txid >= pg_snapshot_xmin(pg_current_snapshot())
                OR NOT EXISTS (SELECT FROM @schema@.position AS p WHERE p.seq = e.seq))
        )
        SELECT @schema@.still_open(pg_current_snapshot(), '4') INTO done.snapshot;
        done.target := NULL;
    END IF;

    -- By number: those of transactions that were not begun and that were open. Or the rest of a great many, by `seq`.
    WITH found AS MATERIALIZED (
        SELECT e.seq, e.channel, e.size FROM @schema@.event AS e
            WHERE done.target IS NULL AND e.txid >= pg_snapshot_xmax(done.snapshot) AND e.txid <> own
        UNION ALL
        SELECT e.seq, e.channel, e.size FROM @schema@.event AS e
            WHERE done.target IS NULL AND e.txid <> own AND e.txid = ANY (ARRAY(
                SELECT x FROM pg_snapshot_xip(done.snapshot) AS x
                WHERE pg_visible_in_snapshot(x, pg_current_snapshot())))
        UNION ALL
        (SELECT e.seq, e.channel, e.size FROM @schema@.event AS e
            WHERE done.target IS NOT NULL AND e.seq > done.through
                AND pg_visible_in_snapshot(e.txid, done.target) AND NOT pg_visible_in_snapshot(e.txid, done.snapshot)
            ORDER BY e.seq LIMIT most)
    ), chosen AS (
        SELECT f.seq, f.channel, f.size FROM found AS f ORDER BY f.seq LIMIT most
    ), placed AS (
        INSERT INTO @schema@.position AS p (position, seq, channel, size)
            SELECT start + row_number() OVER (ORDER BY c.seq), c.seq, c.channel, c.size FROM chosen AS c
            RETURNING p.position, p.seq, p.channel
    )
    SELECT count(*), coalesce(max(p.position), done.last), max(p.seq), coalesce(json_agg(DISTINCT p.channel), '[]'),
            pg_current_snapshot()
        INTO positioned, next.last, next.through, channels, next.snapshot FROM placed AS p;

    -- What this very transaction has published or will publish is left to the next: in its own eyes it is not open.
    next.snapshot := @schema@.still_open(next.snapshot, own);
    more := positioned = most;
    IF more THEN
        next.target := coalesce(done.target, next.snapshot);
        next.snapshot := done.snapshot;
    ELSE
        next.snapshot := coalesce(done.target, next.snapshot);
        next.through := NULL;
    END IF;
    INSERT INTO @schema@.tick (tick, last, snapshot, target, through)
        VALUES (done.tick + 1, next.last, next.snapshot, next.target, next.through);
    epoch := state.epoch;
    last := next.last;
    snapshot := next.snapshot;
    RETURN NEXT;

    -- Told once, with as much as fits: a channel beside `*` is any.
    IF positioned > 0 THEN
        payload := format('p %s %s %s %s %s', epoch, done.last, last, snapshot, channels);
        IF octet_length(payload) > 7900 THEN
            payload := format('p %s %s %s %s *', epoch, done.last, last, snapshot);
        END IF;
        IF octet_length(payload) > 7900 THEN
            payload := format('p %s %s %s - *', epoch, done.last, last);
        END IF;
        PERFORM pg_notify('@notify@', payload);
    END IF;
END $body$;

-- Removes events beyond the last `history` of their channel and those older than `age_seconds`, of each kind `max_rows`
-- at most; returns how many. Of the last `spared_seconds` none goes for being one too many: they may just be read. One
-- prunes at a time: while another is at it, nothing is done. A channel without events is forgotten a day later; from
-- then on it is one of those that were not trimmed beyond `floor`.
CREATE OR REPLACE FUNCTION @schema@.prune(
    history bigint,
    age_seconds double precision,
    max_rows integer DEFAULT 1000,
    spared_seconds double precision DEFAULT 0
) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $body$
DECLARE
    state @schema@.pruning;
    expired bigint := @schema@.clock() - (age_seconds * 1000000)::bigint;
    spared bigint := @schema@.clock() - (spared_seconds * 1000000)::bigint;
    removed bigint;
    forgotten bigint;
BEGIN
    SELECT * INTO state FROM @schema@.pruning FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;

    WITH new AS MATERIALIZED (
        SELECT p.channel, p.position FROM @schema@.position AS p
        WHERE p.position > state.counted ORDER BY p.position LIMIT 1000 * max_rows
    ), counts AS (
        INSERT INTO @schema@.channel AS c (channel, last, kept, trimmed)
            SELECT n.channel, max(n.position), count(*), state.floor FROM new AS n GROUP BY n.channel
            ON CONFLICT (channel) DO UPDATE SET last = excluded.last, kept = c.kept + excluded.kept
    )
    SELECT coalesce(max(n.position), state.counted) INTO state.counted FROM new AS n;

    -- Of each channel its beginning: where events were trimmed, all before them were.
    WITH doomed AS (
        (SELECT p.position FROM @schema@.position AS p
            WHERE p.position <= least(expired, state.counted) ORDER BY p.position LIMIT max_rows)
        UNION
        (SELECT p.position FROM @schema@.channel AS c CROSS JOIN LATERAL (
                SELECT p.position FROM @schema@.position AS p
                WHERE p.channel = c.channel ORDER BY p.position LIMIT c.kept - history) AS p
            WHERE c.kept > history AND p.position <= spared LIMIT max_rows)
    ), positions AS (
        DELETE FROM @schema@.position AS p USING doomed AS d WHERE p.position = d.position
            RETURNING p.seq, p.channel, p.position
    ), events AS (
        DELETE FROM @schema@.event AS e USING positions AS p WHERE e.seq = p.seq
    ), counts AS (
        UPDATE @schema@.channel AS c SET kept = c.kept - p.kept, trimmed = p.trimmed
        FROM (SELECT p.channel, count(*) AS kept, max(p.position) AS trimmed
            FROM positions AS p GROUP BY p.channel) AS p
        WHERE c.channel = p.channel
    )
    SELECT count(*) INTO removed FROM positions;

    WITH gone AS (
        DELETE FROM @schema@.channel AS c WHERE c.kept = 0 AND c.last < expired - 86400000000 RETURNING c.last
    )
    SELECT max(g.last) INTO forgotten FROM gone AS g;
    UPDATE @schema@.pruning SET counted = state.counted, floor = greatest(state.floor, forgotten);
    DELETE FROM @schema@.tick AS t WHERE t.tick < (SELECT max(t.tick) FROM @schema@.tick AS t);
    RETURN removed;
END $body$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA @schema@ FROM PUBLIC;
