-- Count the seats that their executions have left, and the offers of them.
-- Parameters: now timestamptz

SELECT count(*) FILTER (
           WHERE NOT EXISTS (
               SELECT FROM tutoring.waitlist_entries AS offer
               WHERE offer.seat_id = seat.id AND offer.status = 'accepted'
           )
       ) AS seats,
       count(*) FILTER (
           WHERE EXISTS (
               SELECT FROM tutoring.waitlist_entries AS offer
               WHERE offer.seat_id = seat.id AND offer.status = 'notified'
           )
       ) AS offers
FROM tutoring.waitlist_seats AS seat
WHERE
-- include seat_is_left.sql
