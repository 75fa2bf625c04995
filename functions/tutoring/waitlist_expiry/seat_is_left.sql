-- The seat's execution should have looked at it again and has not; nobody has a valid offer of it.
seat.status = 'open' AND seat.tended_until <= :now
AND NOT EXISTS (
    SELECT FROM tutoring.waitlist_entries AS offer
    WHERE offer.seat_id = seat.id AND offer.status = 'notified'
      AND (offer.expires_at IS NULL OR offer.expires_at > :now)
)
