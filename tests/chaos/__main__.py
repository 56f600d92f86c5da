"""``python tests/chaos``; see ``chaos/command.py``."""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # tests/, as pytest has it
    from chaos.command import main

    main()
