-- Count the events of each item in each window, and write the counts that have changed.
counted AS (
    SELECT item.id AS item_id, days,
           count(*) FILTER (WHERE kind = 'view') AS views,
           count(*) FILTER (WHERE kind = 'download') AS downloads,
           count(*) FILTER (WHERE kind = 'assignment') AS assignments,
           count(DISTINCT student_id) AS unique_students,
           sum(seconds) FILTER (WHERE kind = 'view')::double precision
               / nullif(count(seconds) FILTER (WHERE kind = 'view'), 0) AS average_seconds,
           max(occurred_at) AS last_used_at
    FROM item
    CROSS JOIN unnest(:windows) AS days
    LEFT JOIN tutoring.content_events AS event
      ON event.item_id = item.id
     AND occurred_at > :until - days * interval '24 hours' AND occurred_at <= :until
    GROUP BY item.id, days
),
changed AS (
    INSERT INTO tutoring.content_analytics_cache AS cached
        (item_id, window_days, views, downloads, assignments, unique_students, average_seconds, last_used_at,
         computed_at, created_at, updated_at)
    SELECT item_id, days, views, downloads, assignments, unique_students, average_seconds, last_used_at,
           :until, :until, :until
    FROM counted
    ON CONFLICT (item_id, window_days) DO UPDATE
    SET views = excluded.views, downloads = excluded.downloads, assignments = excluded.assignments,
        unique_students = excluded.unique_students, average_seconds = excluded.average_seconds,
        last_used_at = excluded.last_used_at, computed_at = excluded.computed_at, updated_at = excluded.updated_at
    WHERE (cached.views, cached.downloads, cached.assignments, cached.unique_students, cached.average_seconds,
           cached.last_used_at)
        IS DISTINCT FROM
          (excluded.views, excluded.downloads, excluded.assignments, excluded.unique_students,
           excluded.average_seconds, excluded.last_used_at)
    RETURNING item_id
)
SELECT (SELECT count(*) FROM item), (SELECT count(*) FROM changed), (SELECT id FROM item ORDER BY id DESC LIMIT 1)
