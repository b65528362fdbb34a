"""CloudEvents 1.0 over HTTP as usage events: structured, binary and batched (docs/cloudevents.md)."""
