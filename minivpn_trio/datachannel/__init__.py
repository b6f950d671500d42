"""The data channel: IP packets to encrypted datagrams and back, with keys that change in flight."""
