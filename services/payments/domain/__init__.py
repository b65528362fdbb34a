"""What a payment is, when it is tried again, and by what it is paid: pure, `now` passed in."""
