-- Take over the next seats that their executions have left: expire their offers, and free those that nobody took.
-- Parameters: now timestamptz, after text, size integer, most integer

WITH due AS (
    SELECT seat.id, seat.tended_until AS since
    FROM tutoring.waitlist_seats AS seat
    WHERE seat.tended_until >= cast(:after AS timestamptz) AND
-- include seat_is_left.sql
    ORDER BY seat.tended_until
    LIMIT :size
    FOR NO KEY UPDATE SKIP LOCKED
),
expired AS (
    UPDATE tutoring.waitlist_entries AS offer SET status = 'expired', task_token = NULL, updated_at = :now
    FROM due
    WHERE offer.seat_id = due.id AND offer.status = 'notified' AND offer.expires_at <= :now
    RETURNING offer.id
),
settled AS (
    UPDATE tutoring.waitlist_seats AS seat
    SET status = CASE
        WHEN EXISTS (
            SELECT FROM tutoring.waitlist_entries AS offer
            WHERE offer.seat_id = seat.id AND offer.status = 'accepted'
        ) THEN 'taken'
        ELSE 'passed_on'
    END
    FROM due
    WHERE seat.id = due.id
    RETURNING seat.id, seat.waitlist_id, seat.status
),
freed AS (
    SELECT waitlist_id, 'waitlist-seat/' || id AS dedup_key FROM settled WHERE status = 'passed_on'
),
-- include openings.sql
