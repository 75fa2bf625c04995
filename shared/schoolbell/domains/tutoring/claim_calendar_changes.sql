-- Claim the oldest due records, one a lesson, and read what it takes to carry each over.
-- Parameters: now timestamptz, run uuid, until timestamptz, batch integer

WITH due AS MATERIALIZED (
    SELECT record.id, account.id AS account_id
    FROM tutoring.session_calendar_sync AS record
    JOIN LATERAL (
        SELECT id FROM tutoring.calendar_connections
        WHERE teacher_id = record.teacher_id AND status = 'active' AND secret_id IS NOT NULL
        ORDER BY created_at DESC, id
        LIMIT 1
    ) AS account ON true
    WHERE record.status = 'pending'
      AND (record.next_attempt_at IS NULL OR record.next_attempt_at <= :now)
      AND NOT EXISTS (
          SELECT FROM tutoring.session_calendar_sync AS other
          WHERE other.session_id = record.session_id AND other.status = 'pending'
            AND (other.sequence > record.sequence OR (other.claimed_until > :now AND other.claimed_by <> :run))
      )
    ORDER BY record.created_at, record.sequence
    LIMIT :batch
    FOR UPDATE OF record SKIP LOCKED
),
claimed AS (
    UPDATE tutoring.session_calendar_sync AS record
    SET claimed_by = :run, claimed_until = :until, updated_at = :now
    FROM due
    WHERE record.id = due.id
    RETURNING record.*, due.account_id
)
SELECT claimed.id, claimed.session_id, claimed.sequence, claimed.attempts, claimed.teacher_id,
       account.id AS account_id, account.calendar_id, account.secret_id, account.updated_at AS seen,
       newest.action, lesson.starts_at, lesson.ends_at, lesson.student_id, student.name, teacher.timezone
FROM claimed
JOIN tutoring.calendar_connections AS account ON account.id = claimed.account_id
JOIN tutoring.teachers AS teacher ON teacher.id = claimed.teacher_id
JOIN LATERAL (
    SELECT action FROM tutoring.session_calendar_sync
    WHERE session_id = claimed.session_id
    ORDER BY sequence DESC
    LIMIT 1
) AS newest ON true
LEFT JOIN tutoring.sessions AS lesson ON lesson.id = claimed.session_id
LEFT JOIN tutoring.students AS student ON student.id = lesson.student_id
ORDER BY claimed.created_at, claimed.sequence
