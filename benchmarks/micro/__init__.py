"""Microseconds a packet, stage by stage, without sockets or a scheduler.

``stages.py`` has one contestant for each stage of the hot path; ``python -m benchmarks.micro`` prints them and a
test holds them against ``baseline.json``. ``datachannel.py`` and ``netstack.py`` go deeper: other ciphers and
framings, other ways to do the same, segments around holes.
"""
