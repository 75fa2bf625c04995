-- Compute the figures of a chunk of rules, and tell of those that have crossed their line since the last run.
-- Parameters: after uuid, size integer, now timestamptz, fewest_lessons integer, notices jsonb

-- A window is cut to ten years, since an interval has an end.
WITH rule AS MATERIALIZED (
    SELECT id, teacher_id, metric, comparator, threshold, enabled,
           least(window_days, 3650) AS days,
           :now - least(window_days, 3650) * interval '24 hours' AS since
    FROM tutoring.metric_alert_rules
    WHERE id > :after
    ORDER BY id
    LIMIT :size
),
metric (name, is_rate) AS (
    VALUES ('completion_rate', true),
           ('cancellation_rate', true),
           ('no_show_rate', true),
           ('active_students', false),
           ('credits_consumed', false),
           ('sessions_taught', false)
),
lessons AS (
    SELECT teacher_id, days, counted.*, completed + cancelled + no_show AS settled
    FROM (SELECT DISTINCT teacher_id, days, since FROM rule WHERE enabled AND metric <> 'credits_consumed') AS wanted
    CROSS JOIN LATERAL (
        SELECT count(*) FILTER (WHERE status = 'completed') AS completed,
               count(*) FILTER (WHERE status = 'cancelled') AS cancelled,
               count(*) FILTER (WHERE status = 'no_show') AS no_show,
               count(DISTINCT student_id) FILTER (WHERE status = 'completed') AS students
        FROM tutoring.sessions
        WHERE teacher_id = wanted.teacher_id AND starts_at > wanted.since AND starts_at <= :now
    ) AS counted
),
credits AS (
    SELECT teacher_id, days, consumed
    FROM (SELECT DISTINCT teacher_id, days, since FROM rule WHERE enabled AND metric = 'credits_consumed') AS wanted
    CROSS JOIN LATERAL (
        SELECT -coalesce(sum(amount), 0) AS consumed
        FROM tutoring.students AS student
        JOIN tutoring.credit_ledger AS entry ON entry.student_id = student.id
        WHERE student.teacher_id = wanted.teacher_id
          AND entry.kind = 'CONSUME' AND entry.created_at > wanted.since AND entry.created_at <= :now
    ) AS counted
),
measured AS MATERIALIZED (
    SELECT rule.*, is_rate,
           CASE
               WHEN is_rate AND settled < :fewest_lessons THEN NULL
               WHEN metric = 'completion_rate' THEN completed / settled::double precision
               WHEN metric = 'cancellation_rate' THEN cancelled / settled::double precision
               WHEN metric = 'no_show_rate' THEN no_show / settled::double precision
               WHEN metric = 'active_students' THEN students
               WHEN metric = 'credits_consumed' THEN consumed
               WHEN metric = 'sessions_taught' THEN completed
           END AS value
    FROM rule
    JOIN metric ON metric.name = rule.metric
    LEFT JOIN lessons USING (teacher_id, days)
    LEFT JOIN credits USING (teacher_id, days)
    WHERE enabled
),
unknown AS (SELECT id FROM rule WHERE enabled AND metric NOT IN (SELECT name FROM metric)),
changed AS (
    INSERT INTO tutoring.metric_alert_states AS state
        (rule_id, breached, value, changed_at, created_at, updated_at)
    SELECT id, CASE comparator WHEN 'below' THEN value < threshold ELSE value > threshold END, value, :now, :now, :now
    FROM measured
    WHERE value IS NOT NULL
    ON CONFLICT (rule_id) DO UPDATE
    SET breached = excluded.breached, value = excluded.value, changed_at = excluded.changed_at,
        updated_at = excluded.updated_at
    WHERE state.breached <> excluded.breached
    RETURNING rule_id, breached, created_at = updated_at AS is_first
),
put_by AS (
    UPDATE tutoring.metric_alert_states AS state
    SET breached = false, changed_at = :now, updated_at = :now
    FROM rule
    WHERE rule_id = rule.id AND NOT enabled AND breached
),
told AS (
    INSERT INTO tutoring.teacher_notifications
        (teacher_id, kind, subject_id, dedup_key, title, body, created_at, updated_at)
    SELECT teacher_id, 'metric_alert', id, concat('metric-alert/', id, '/', :now),
           format(:notices -> metric ->> 'title', comparator, shown.threshold, days, shown.value),
           format(:notices -> metric ->> 'body', comparator, shown.threshold, days, shown.value),
           :now, :now
    FROM changed
    JOIN measured ON id = rule_id
    CROSS JOIN LATERAL (
        SELECT CASE WHEN is_rate THEN 100 ELSE 1 END AS factor, CASE WHEN is_rate THEN '%' END AS unit
    ) AS scale
    CROSS JOIN LATERAL (
        SELECT concat(trim_scale(round(measured.value::numeric * factor, 1)), unit) AS value,
               concat(trim_scale(round(measured.threshold::numeric * factor, 1)), unit) AS threshold
    ) AS shown
    WHERE breached
    ON CONFLICT (dedup_key) DO NOTHING
    RETURNING id
)
SELECT (SELECT id FROM rule ORDER BY id DESC LIMIT 1),
       (SELECT string_agg(id::text, ' ') FROM (SELECT id FROM unknown LIMIT 20) AS some_of_them),
       (SELECT json_agg(id) FROM told),
       (SELECT count(*) FROM rule WHERE enabled),
       (SELECT count(*) FROM changed WHERE breached),
       (SELECT count(*) FROM changed WHERE NOT breached AND NOT is_first),
       (SELECT count(*) FROM measured WHERE value IS NULL),
       (SELECT count(*) FROM unknown)
