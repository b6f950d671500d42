"""The room for other consumers of IP packets than our own stack, such as a real tun device. Still empty."""
