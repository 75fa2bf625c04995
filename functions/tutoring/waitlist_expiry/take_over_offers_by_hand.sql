-- Expire the next offers that were made by hand and are over, and free their seats.
-- Parameters: now timestamptz, after text, size integer, most integer

WITH due AS (
    SELECT offer.id, offer.expires_at AS since
    FROM tutoring.waitlist_entries AS offer
    LEFT JOIN tutoring.waitlist_seats AS seat ON seat.id = offer.seat_id
    WHERE offer.expires_at >= cast(:after AS timestamptz) AND
-- include offer_is_left.sql
    ORDER BY offer.expires_at
    LIMIT :size
    FOR NO KEY UPDATE OF offer SKIP LOCKED
),
expired AS (
    UPDATE tutoring.waitlist_entries AS offer SET status = 'expired', task_token = NULL, updated_at = :now
    FROM due
    WHERE offer.id = due.id
    RETURNING offer.id, offer.waitlist_id, offer.seat_id, offer.expires_at
),
freed AS (
    SELECT waitlist_id, 'waitlist-entry/' || id || '/' || expires_at AS dedup_key
    FROM expired
    WHERE seat_id IS NULL
),
-- include openings.sql
