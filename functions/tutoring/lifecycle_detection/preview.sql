-- Count what `record.sql` would record and end.
-- Parameters: after uuid, last uuid, now timestamptz, zones text[], gap_days integer, churn_days integer
-- Parameters: expiring_days integer, streak_weeks integer

-- include found.sql
SELECT NULL AS told,
       (SELECT count(*) FROM student) AS students,
       count(*) FILTER (WHERE kind = 'gap') AS gap,
       count(*) FILTER (WHERE kind = 'churn') AS churn,
       count(*) FILTER (WHERE kind = 'enrollment_expiring') AS enrollment_expiring,
       count(*) FILTER (WHERE kind = 'streak') AS streak,
       (SELECT count(*) FROM over) AS ended
FROM new
