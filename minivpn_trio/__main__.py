"""``python -m minivpn_trio`` is the command ``minivpn-trio``."""

from .cli import main

if __name__ == "__main__":
    main()
