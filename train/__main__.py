"""python -m train"""

import sys

if __name__ == "__main__":
    try:
        from train.cli import main
    except KeyboardInterrupt:  # The libraries take seconds to import.
        sys.exit("Stopped.")
    sys.exit(main())
