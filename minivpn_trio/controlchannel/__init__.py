"""The control channel: from numbered messages to the byte streams that TLS reads, and back."""
