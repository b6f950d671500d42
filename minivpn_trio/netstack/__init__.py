"""The TCP/IP stack: TCP, UDP and ICMP over bursts of IP packets, and sockets for them.

``stack/`` is where packets go in and out; ``sockets/`` and ``resolver.py`` are what Trio sees.
"""
