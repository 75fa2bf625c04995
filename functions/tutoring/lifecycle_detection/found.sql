-- Find the students of a chunk who have gone quiet, whose enrolment ends, or who keep coming, and compare with what
-- stands: what is new, and what is over.

-- A threshold is cut where it is as good as never: dates end, and weeks are counted over the last 53, this one
-- included.
-- Weeks are numbered by bisection in the instants at which they began, so clock changes are theirs and cost nothing.
WITH zone AS MATERIALIZED (
    SELECT name, local.today, local.monday,
           ARRAY(
               SELECT (local.monday - 7 * weeks_ago)::timestamp AT TIME ZONE name
               FROM generate_series(52, 0, -1) AS weeks_ago
           ) AS mondays
    FROM unnest(:zones) AS name
    CROSS JOIN LATERAL (
        SELECT (:now AT TIME ZONE name)::date AS today,
               date_trunc('week', :now AT TIME ZONE name)::date AS monday
    ) AS local
),
student AS MATERIALIZED (
    SELECT student.id, student.teacher_id, student.name, student.created_at, student.last_activity_at,
           CASE WHEN teacher.timezone = ANY (:zones) THEN teacher.timezone ELSE 'UTC' END AS zone,
           coalesce(setting.gap_days, :gap_days) AS gap_days,
           coalesce(setting.churn_days, :churn_days) AS churn_days,
           least(coalesce(setting.expiring_days, :expiring_days), 36500) AS expiring_days,
           least(coalesce(setting.streak_weeks, :streak_weeks), 52) AS streak_weeks
    FROM tutoring.students AS student
    JOIN tutoring.teachers AS teacher ON teacher.id = student.teacher_id
    LEFT JOIN tutoring.retention_settings AS setting ON setting.teacher_id = student.teacher_id
    WHERE student.id > :after AND student.id <= :last AND student.status = 'active'
    ORDER BY student.id
),

-- One short range of the covering index a student: from the first week that a streak must have up to the last lesson
-- that is booked. Bit n of `weeks` says whether a lesson was completed n weeks ago.
seen AS MATERIALIZED (
    SELECT student.id AS student_id, student.teacher_id, zone.name AS zone, zone.today,
           student.gap_days, student.churn_days, student.expiring_days,
           lesson.coming IS TRUE AS coming,
           (greatest(least(coalesce(lesson.last, earlier.last, student.created_at), :now), beginning)
            AT TIME ZONE zone.name)::date AS last_lesson,
           (greatest(lesson.last, earlier.last, beginning,
                     least(coalesce(student.last_activity_at, student.created_at), :now))
            AT TIME ZONE zone.name)::date AS last_activity,
           in_a_row IN (lesson.weeks & in_a_row, (lesson.weeks >> 1) & in_a_row) AS is_on_streak
    FROM student
    JOIN zone ON zone.name = student.zone
    CROSS JOIN (SELECT timestamptz '0001-01-02 00:00+00' AS beginning) AS era
    CROSS JOIN LATERAL (
        SELECT zone.mondays[53 - streak_weeks] AS since, (1::bigint << streak_weeks) - 1 AS in_a_row
    ) AS streak
    CROSS JOIN LATERAL (
        SELECT max(starts_at) FILTER (
                   WHERE starts_at <= :now AND status IN ('completed', 'pending_review', 'scheduled')
               ) AS last,
               bool_or(starts_at > :now AND status = 'scheduled') AS coming,
               bit_or(1::bigint << (53 - width_bucket(starts_at, zone.mondays))) FILTER (
                   WHERE starts_at <= :now AND status = 'completed'
               ) AS weeks
        FROM tutoring.sessions
        WHERE student_id = student.id AND starts_at >= streak.since
    ) AS lesson
    LEFT JOIN LATERAL (
        SELECT starts_at AS last
        FROM tutoring.sessions
        WHERE lesson.last IS NULL AND student_id = student.id AND starts_at < streak.since
          AND status IN ('completed', 'pending_review', 'scheduled')
        ORDER BY starts_at DESC
        LIMIT 1
    ) AS earlier ON true
),
streak AS MATERIALIZED (
    SELECT seen.teacher_id, seen.student_id, length,
           zone.monday - 7 * (length - 1 + CASE WHEN came_this_week THEN 0 ELSE 1 END) AS began
    FROM seen
    JOIN zone ON zone.name = seen.zone
    CROSS JOIN LATERAL (
        SELECT bit_or(1::bigint << (53 - width_bucket(starts_at, zone.mondays))) AS weeks
        FROM tutoring.sessions
        WHERE student_id = seen.student_id AND starts_at BETWEEN zone.mondays[1] AND :now AND status = 'completed'
    ) AS lesson
    CROSS JOIN LATERAL (SELECT lesson.weeks & 1 = 1 AS came_this_week) AS this_week
    CROSS JOIN LATERAL (
        SELECT CASE WHEN came_this_week THEN weeks ELSE weeks >> 1 END::bit(53)::text AS bits
    ) AS counted
    CROSS JOIN LATERAL (SELECT length(bits) - length(rtrim(bits, '1')) AS length) AS trailing_ones
    WHERE seen.is_on_streak
),

-- A standing signal is the found one when its period lies between `earliest` and `latest`: a lesson that is struck out
-- afterwards moves the beginning of a silence back, and one that is completed late that of a streak, and both are the
-- same silence or streak still.
found AS MATERIALIZED (
    SELECT teacher_id, student_id, 'gap' AS kind, last_lesson::text AS period, last_lesson::text AS earliest,
           '~' AS latest, last_lesson AS day, today - last_lesson AS number, NULL::uuid AS enrollment_id
    FROM seen
    WHERE today - last_lesson >= gap_days AND NOT coming
    UNION ALL
    SELECT teacher_id, student_id, 'churn', last_activity::text, last_activity::text, '~', last_activity,
           today - last_activity, NULL
    FROM seen
    WHERE today - last_activity >= churn_days
    UNION ALL
    SELECT teacher_id, student_id, 'enrollment_expiring', named.period, named.period, named.period, ends_on,
           ends_on - today, enrollment.id
    FROM seen
    JOIN tutoring.enrollments AS enrollment USING (student_id)
    CROSS JOIN LATERAL (SELECT enrollment.id || '/' || ends_on AS period) AS named
    WHERE enrollment.student_id > :after AND enrollment.student_id <= :last AND enrollment.status = 'active'
      AND ends_on BETWEEN today AND today + expiring_days
    UNION ALL
    SELECT teacher_id, student_id, 'streak', named.period,
           CASE WHEN length < 52 THEN named.period ELSE '' END, '~', began, length, NULL
    FROM streak
    CROSS JOIN LATERAL (SELECT to_char(began, 'IYYY-"W"IW') AS period) AS named
),
standing AS MATERIALIZED (
    SELECT signal.id, signal.teacher_id, signal.student_id, signal.kind, signal.period COLLATE "C" AS period
    FROM tutoring.lifecycle_signals AS signal
    WHERE signal.student_id > :after AND signal.student_id <= :last AND signal.ended_at IS NULL
),
new AS (
    SELECT * FROM found
    WHERE NOT EXISTS (
        SELECT FROM standing
        WHERE (standing.teacher_id, standing.student_id, standing.kind)
            = (found.teacher_id, found.student_id, found.kind)
          AND standing.period BETWEEN found.earliest AND found.latest
    )
),
over AS (
    SELECT id FROM standing
    WHERE NOT EXISTS (
        SELECT FROM found
        WHERE (standing.teacher_id, standing.student_id, standing.kind)
            = (found.teacher_id, found.student_id, found.kind)
          AND standing.period BETWEEN found.earliest AND found.latest
    )
)
