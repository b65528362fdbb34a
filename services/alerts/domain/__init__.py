"""What an alert, a channel and a notification are, and the rules they keep. Pure: no database, no network, no clock."""
