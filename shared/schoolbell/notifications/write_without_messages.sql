-- Write a notification for each row of `to_notify`: channel, recipient, template, data, priority, dedup_key and
-- student_id. They get no message here: `platform.email-queue` hands them over within a minute, a hundred at a time.
-- The id follows from the key: whoever writes a notification again, after a crash, writes the same one.
INSERT INTO platform.notifications
    (id, channel, recipient, template, data, priority, dedup_key, student_id, created_at, updated_at)
SELECT md5(dedup_key)::uuid, channel, recipient, template, data, priority, dedup_key, student_id, :now, :now
FROM to_notify
ON CONFLICT (dedup_key) DO NOTHING
