"""What the service does. One use case is one transaction, but for deliveries: no transaction is open while one is sent."""
