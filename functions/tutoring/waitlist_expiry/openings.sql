-- One opening a waitlist, or as many as its seats need; returns where the next chunk starts, counts and openings.
numbered AS (
    SELECT waitlist_id, dedup_key, row_number() OVER (PARTITION BY waitlist_id ORDER BY dedup_key) - 1 AS number
    FROM freed
),
opening AS (
    SELECT waitlist_id, min(dedup_key) AS dedup_key, count(*) AS seats
    FROM numbered GROUP BY waitlist_id, number / :most
)
SELECT (SELECT max(since)::text FROM due) AS last,
       (SELECT count(*) FROM expired) AS offers,
       (SELECT count(*) FROM freed) AS seats,
       (SELECT jsonb_agg(to_jsonb(opening)) FROM opening) AS openings
