"""The servers and workers. Each service owns its database; none imports another."""
