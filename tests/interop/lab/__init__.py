"""A laboratory of network namespaces with the real openvpn in it.

Used by the interop tests and by ``benchmarks/end_to_end.py``. ``Lab`` is where to start.
"""
