-- Count the offers that were made by hand and are over, and the seats that they free.
-- Parameters: now timestamptz

SELECT count(*) FILTER (WHERE offer.seat_id IS NULL) AS seats, count(*) AS offers
FROM tutoring.waitlist_entries AS offer
LEFT JOIN tutoring.waitlist_seats AS seat ON seat.id = offer.seat_id
WHERE
-- include offer_is_left.sql
