-- Count every item that has events.
-- Parameters: after uuid, size integer, windows integer[], until timestamptz
WITH item AS MATERIALIZED (
    SELECT id
    FROM tutoring.content_items AS item
    WHERE id > :after AND EXISTS (SELECT FROM tutoring.content_events WHERE item_id = item.id)
    ORDER BY id
    LIMIT :size
),
-- include counted.sql
