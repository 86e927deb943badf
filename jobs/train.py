"""``python -m jobs.train``: see ``maskrcnn.commands.train``."""

from maskrcnn.commands.train import main

if __name__ == "__main__":
    main()
