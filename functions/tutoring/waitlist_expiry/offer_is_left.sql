-- The offer is over, and was made by hand: no execution knows of it.
offer.status = 'notified' AND offer.expires_at <= :now AND (offer.seat_id IS NULL OR seat.status <> 'open')
