SELECT position, version, id, published_at, event_type, tenant_id, all_tenants, source, data::text, previous::text, channel, found FROM (
    SELECT position, seq, sum(size) OVER (ORDER BY position) - size AS before, count(*) OVER () AS found
    FROM (SELECT * FROM @schema@.position
        WHERE position > $2 AND position <= $3 AND channel = ANY ($1)
        ORDER BY position LIMIT 500) AS next
) AS page JOIN @schema@.event USING (seq) WHERE before < 1048576 ORDER BY position
