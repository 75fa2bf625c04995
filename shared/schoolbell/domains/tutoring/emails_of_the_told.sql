-- The email for each row of `told`, rows of `tutoring.teacher_notifications` that the statement has written.
-- What is found by night is so much that others should not wait for it.
SELECT 'email' AS channel, 'teacher/' || teacher_id AS recipient, kind AS template,
       jsonb_strip_nulls(jsonb_build_object('title', title, 'body', body)) AS data,
       CASE WHEN kind LIKE 'lifecycle\_%' THEN 'low' ELSE 'normal' END AS priority,
       'teacher-email/' || dedup_key AS dedup_key, student_id
FROM told
