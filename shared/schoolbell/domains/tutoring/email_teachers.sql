-- Write an email for each of these notifications.
-- Parameters: told uuid[], now timestamptz

WITH told AS (SELECT * FROM tutoring.teacher_notifications WHERE id = ANY (cast(:told AS uuid[]))),
to_notify AS (
-- include emails_of_the_told.sql
)
-- include ../../notifications/write_without_messages.sql
