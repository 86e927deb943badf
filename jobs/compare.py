"""``python -m jobs.compare``: see ``maskrcnn.commands.compare``."""

from maskrcnn.commands.compare import main

if __name__ == "__main__":
    main()
