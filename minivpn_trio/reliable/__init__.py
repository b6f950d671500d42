"""The reliability layer: acknowledgements, retransmission and order for control packets.

``sender.py`` and ``receiver.py`` are the two directions, ``acks.py`` what joins
them, ``conversation.py`` all three for one key, ``transport.py`` the keys of a
session, ``worker.py`` its two tasks.
"""
