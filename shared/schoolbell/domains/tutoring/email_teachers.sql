-- Write an email for each of these notifications.
-- Parameters: told uuid[], now timestamptz

WITH told AS (SELECT * FROM tutoring.teacher_notifications WHERE id = ANY (cast(:told AS uuid[])))
-- include email_the_told.sql
