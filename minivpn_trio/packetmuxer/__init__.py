"""The gate of a session: sorts data from control, binds the session ids, protects control packets.

``muxer.py`` is the core, ``control_wrap.py`` what stands between it and the
wire (``tls_auth.py``, ``tls_crypt.py``, ``tls_crypt_v2.py``), ``worker.py`` its two tasks.
"""
