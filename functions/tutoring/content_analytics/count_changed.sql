-- Count the items whose numbers can have changed since the last run.
-- Parameters: since timestamptz, stored_since timestamptz, after uuid, size integer
-- Parameters: windows integer[], until timestamptz
WITH item AS MATERIALIZED (
    SELECT item_id AS id
    FROM (
        SELECT item_id FROM tutoring.content_events WHERE created_at >= :stored_since
        UNION ALL
        SELECT item_id FROM tutoring.content_events WHERE occurred_at > :since AND occurred_at <= :until
        UNION ALL
        SELECT item_id
        FROM unnest(:windows) AS days
        JOIN tutoring.content_events
          ON occurred_at > :since - days * interval '24 hours' AND occurred_at <= :until - days * interval '24 hours'
    ) AS touched
    WHERE item_id > :after
    GROUP BY item_id
    ORDER BY item_id
    LIMIT :size
),
-- include counted.sql
