-- Write an email for each row of `told`, rows of `tutoring.teacher_notifications` that the statement has written.
-- What is found by night is so much that others should not wait for it. The id follows from the key: whoever writes an
-- email again, after a crash, writes the same one.
INSERT INTO platform.notifications
    (id, channel, recipient, template, data, priority, dedup_key, student_id, created_at, updated_at)
SELECT md5(key)::uuid, 'email', 'teacher/' || teacher_id, kind,
       jsonb_strip_nulls(jsonb_build_object('title', title, 'body', body)),
       CASE WHEN kind LIKE 'lifecycle\_%' THEN 'low' ELSE 'normal' END,
       key, student_id, :now, :now
FROM told, LATERAL (SELECT 'teacher-email/' || dedup_key AS key) AS named
ON CONFLICT (dedup_key) DO NOTHING
