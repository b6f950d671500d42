"""What a tunnel needs to know, and where it learns it.

``model`` is the answer, ``ovpn`` reads it from a profile, ``push`` merges it
with what the server says, ``report`` tells a human.
"""
