-- Complete the sessions that are due, consume their credits, and tell the teachers who review them.
-- Parameters: ids json, now timestamptz, title text
--
-- One statement, since a round trip costs more than completing a lesson. The ids are in order, so that two batches with
-- lessons in common take them in the same order; should they deadlock all the same (the planner may take the lessons of
-- a small table as they lie), PostgreSQL ends one of them, and it is tried again.
--
-- The ledger entry takes its lesson's id: there is one CONSUME a lesson, and ids from one place keep the index compact.

WITH given AS MATERIALIZED (
    SELECT value::uuid AS id FROM json_array_elements_text(cast(:ids AS json))
),
over AS (
    UPDATE tutoring.sessions AS session
    SET status = CASE completion_mode WHEN 'AUTO_COMPLETE' THEN 'completed' ELSE 'pending_review' END,
        completed_at = CASE completion_mode WHEN 'AUTO_COMPLETE' THEN cast(:now AS timestamptz) END,
        scheduled_for = NULL,
        updated_at = :now
    FROM given
    WHERE session.id = given.id AND session.status = 'scheduled' AND session.due_at <= :now
    RETURNING session.id, teacher_id, student_id, status, credit_cost, due_at
),
consumed AS (
    INSERT INTO tutoring.credit_ledger (id, student_id, session_id, kind, amount, created_at)
    SELECT id, student_id, id, 'CONSUME', -credit_cost, :now FROM over WHERE status = 'completed'
    ON CONFLICT (session_id) WHERE kind = 'CONSUME' DO NOTHING
),
told AS (
    INSERT INTO tutoring.teacher_notifications
        (teacher_id, student_id, kind, subject_id, dedup_key, title, created_at, updated_at)
    SELECT teacher_id, student_id, 'session_review', id,
           'session-review/' || id || '/' || extract(epoch FROM due_at),
           :title, :now, :now
    FROM over WHERE status = 'pending_review'
    ON CONFLICT (dedup_key) DO NOTHING
    RETURNING teacher_id, student_id, kind, dedup_key, title, body
),
to_notify AS (
-- include emails_of_the_told.sql
),
emailed AS (
-- include ../../notifications/write_without_messages.sql
)
SELECT count(*) FILTER (WHERE status = 'completed'), count(*) FILTER (WHERE status = 'pending_review') FROM over
