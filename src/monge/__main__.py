"""``python -m monge``."""

from monge.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
