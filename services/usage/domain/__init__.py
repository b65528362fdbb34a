"""What usage is made of, without any input or output."""
