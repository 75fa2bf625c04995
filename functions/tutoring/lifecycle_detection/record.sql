-- Record the new signals of a chunk of students, tell their teachers, and end what is over.
-- Parameters: after uuid, last uuid, now timestamptz, zones text[], gap_days integer, churn_days integer
-- Parameters: expiring_days integer, streak_weeks integer, notices jsonb

-- include found.sql
,
recorded AS (
    INSERT INTO tutoring.lifecycle_signals AS signal (teacher_id, student_id, kind, period, details, created_at)
    SELECT teacher_id, student_id, kind, period,
           CASE kind
               WHEN 'gap' THEN jsonb_build_object('last_lesson', day, 'days', number)
               WHEN 'churn' THEN jsonb_build_object('last_activity', day, 'days', number)
               WHEN 'streak' THEN jsonb_build_object('since', day, 'weeks', number)
               ELSE jsonb_build_object('ends_on', day, 'days', number, 'enrollment_id', enrollment_id)
           END,
           :now
    FROM new
    ON CONFLICT (teacher_id, student_id, kind, period) WHERE ended_at IS NULL DO NOTHING
    RETURNING signal.teacher_id, signal.student_id, signal.kind, signal.period
),
ended AS (
    UPDATE tutoring.lifecycle_signals AS signal
    SET ended_at = :now, updated_at = :now
    FROM over
    WHERE signal.id = over.id AND signal.ended_at IS NULL
      AND signal.student_id > :after AND signal.student_id <= :last
),
told AS (
    INSERT INTO tutoring.teacher_notifications
        (teacher_id, student_id, subject_id, kind, dedup_key, title, body, created_at)
    SELECT recorded.teacher_id, recorded.student_id, recorded.student_id, 'lifecycle_' || recorded.kind,
           concat_ws('/', 'lifecycle', recorded.kind, recorded.student_id, recorded.period, today),
           format(notice.words ->> 'title', student.name, number, day),
           format(notice.words ->> 'body', student.name, number, day),
           :now
    FROM recorded
    JOIN new USING (teacher_id, student_id, kind, period)
    JOIN student ON student.id = recorded.student_id
    JOIN zone ON zone.name = student.zone
    CROSS JOIN LATERAL (SELECT :notices -> recorded.kind AS words) AS notice
    ON CONFLICT (dedup_key) DO NOTHING
    RETURNING id
)
SELECT (SELECT json_agg(id) FROM told) AS told,
       (SELECT count(*) FROM student) AS students,
       count(*) FILTER (WHERE kind = 'gap') AS gap,
       count(*) FILTER (WHERE kind = 'churn') AS churn,
       count(*) FILTER (WHERE kind = 'enrollment_expiring') AS enrollment_expiring,
       count(*) FILTER (WHERE kind = 'streak') AS streak,
       (SELECT count(*) FROM over) AS ended
FROM recorded
