"""python -m switch_explorer"""

import sys

from switch_explorer import main

if __name__ == "__main__":
    sys.exit(main())
