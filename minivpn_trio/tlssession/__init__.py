"""TLS, the key exchange and the control messages inside of it."""
